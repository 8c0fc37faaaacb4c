"""What each command of the command line does; ``obframe.cli`` holds their options."""
