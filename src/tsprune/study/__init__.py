"""The main job: every question of the paper, asked of the checkpoints it is given."""
