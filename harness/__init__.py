"""From a sweep file to a leaderboard: specification, plan, stages, engine, command line."""
