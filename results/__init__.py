"""Records, the store, statistics and the leaderboard."""
