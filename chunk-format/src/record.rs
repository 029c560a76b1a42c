//! Segment records: the layout on a chunk server's disk.
