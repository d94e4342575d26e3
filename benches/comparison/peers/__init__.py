"""The peers, one library a file. A file is imported only by a process that measures that peer."""
