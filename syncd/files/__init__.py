"""Files that people exchange with syncd: imports and exports. Unfinished files are in `syncd.temp_dirs`."""
