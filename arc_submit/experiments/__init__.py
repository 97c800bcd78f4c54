"""The experiments of the founding diaries as commands: each leaves a table and a picture, and goes on where it was interrupted."""
