"""What people, pipelines and Triton touch: commands, recipes, the main job, the server."""
