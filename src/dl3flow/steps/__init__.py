"""One module per rule of the workflow: read, call, write. The only place where files, options and functions meet."""
