"""The mathematics of learning: pure functions on pytrees, without files, clocks or globals."""
