//! Faults below the servers: calls that fail or lie, disks whose power goes, clocks that jump.

pub mod clock;
pub mod images;
pub mod needs;
pub mod shim;
