"""What every part of Trimton shares: its exceptions and safe writing of files."""
