//! A disk in memory that fails as disks fail, for tests: errors and short writes at the n-th
//! operation, a crash at the n-th operation, and after it any part of what was not synced.
//!
//! The model: every file has bytes as processes see them (`now`), bytes on the platter (`durable`) and
//! the changes between (`recent`). A sync applies the changes to the platter. A failed sync forgets them:
//! they stay visible and no later sync will ever write them, which is what the kernel does. A crash
//! keeps none, all, or a seeded choice of the changes, writes torn at 64-byte pieces included.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, DiskSpace};

/// What happens at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails and has no effect; a sync moreover forgets what it should have written.
    Error,
    /// A write takes a part of its bytes; others fail.
    Short,
    /// It and everything after it fails, until the disk is opened again.
    Crash,
}

/// What survives a crash of what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// Power loss, nothing was written back.
    Nothing,
    /// The process died, the kernel lives.
    Everything,
    /// Power loss, some was written back in any order.
    Some(u64),
}

/// A handle; clones share the disk.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<u64, Node>,
    last_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    capacity: u64,
    /// Operations that change something, or make it durable, since the start of the world.
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    crashed: bool,
    /// Handles of before a restart are dead.
    generation: u64,
}

#[derive(Default)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    recent: Vec<Edit>,
}

#[derive(Clone)]
enum Edit {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
            }
            Self::Length(len) => bytes.resize(*len as usize, 0),
        }
    }
}

/// A small generator, so that a seed says everything.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

impl FaultyDisk {
    pub fn new(capacity: u64) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { capacity, ..Inner::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets the operation with this number (the next is `operations()`) go wrong.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.lock().faults.insert(operation, fault);
    }

    pub fn set_capacity(&self, capacity: u64) {
        self.lock().capacity = capacity;
    }

    /// The disk as the next process finds it. Old handles are dead; no fault is planned any more.
    pub fn restart(&self, kept: Kept) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.crashed = false;
        inner.faults.clear();
        if kept == Kept::Everything {
            return;
        }
        let mut dice = match kept {
            Kept::Some(seed) => Some(Dice::new(seed)),
            Kept::Nothing | Kept::Everything => None,
        };
        let keep = |dice: &mut Option<Dice>| dice.as_mut().is_some_and(|dice| dice.below(2) == 0);
        let names: BTreeSet<String> = inner.names.keys().chain(inner.durable_names.keys()).cloned().collect();
        for name in names {
            let (now, durable) = (inner.names.get(&name).copied(), inner.durable_names.get(&name).copied());
            if now != durable && keep(&mut dice) {
                match now {
                    Some(file) => inner.durable_names.insert(name, file),
                    None => inner.durable_names.remove(&name),
                };
            }
        }
        inner.names = inner.durable_names.clone();
        let named: BTreeSet<u64> = inner.names.values().copied().collect();
        inner.files.retain(|file, _| named.contains(file));
        for node in inner.files.values_mut() {
            for edit in std::mem::take(&mut node.recent) {
                let torn = dice.as_mut().is_some_and(|dice| dice.below(3) == 0);
                match &edit {
                    Edit::Write(offset, data) if torn => {
                        for (piece, bytes) in data.chunks(64).enumerate() {
                            if keep(&mut dice) {
                                Edit::Write(offset + 64 * piece as u64, bytes.to_vec())
                                    .apply(&mut node.durable);
                            }
                        }
                    }
                    edit => {
                        if keep(&mut dice) {
                            edit.apply(&mut node.durable);
                        }
                    }
                }
            }
            node.now = node.durable.clone();
        }
    }

    /// Changes one byte of a file, on the platter and in sight, as rot does.
    pub fn flip(&self, name: &str, offset: u64) {
        let mut inner = self.lock();
        let file = inner.names[name];
        let node = inner.files.get_mut(&file).expect("named files exist");
        node.now[offset as usize] ^= 0x10;
        if let Some(byte) = node.durable.get_mut(offset as usize) {
            *byte ^= 0x10;
        }
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let inner = self.lock();
        inner.files[&inner.names[name]].now.clone()
    }

    /// A deep copy with its own future.
    pub fn fork(&self) -> Self {
        let inner = self.lock();
        let node = |node: &Node| Node {
            now: node.now.clone(),
            durable: node.durable.clone(),
            recent: node.recent.clone(),
        };
        let copy = Inner {
            files: inner.files.iter().map(|(id, file)| (*id, node(file))).collect(),
            names: inner.names.clone(),
            durable_names: inner.durable_names.clone(),
            last_file: inner.last_file,
            capacity: inner.capacity,
            operations: inner.operations,
            ..Inner::default()
        };
        Self { inner: Arc::new(Mutex::new(copy)) }
    }

    fn open_handle(&self, file: u64, generation: u64) -> Arc<dyn DiskFile> {
        Arc::new(Handle { disk: self.clone(), file, generation })
    }
}

impl Inner {
    /// Counts an operation; the fault planned for it, or an error if the disk is gone.
    fn operate(&mut self) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(io::Error::other("the machine is off"));
        }
        let fault = self.faults.get(&self.operations).copied();
        self.operations += 1;
        match fault {
            Some(Fault::Crash) => {
                self.crashed = true;
                Err(io::Error::other("the machine goes off"))
            }
            fault => Ok(fault),
        }
    }

    fn used(&self) -> u64 {
        // A file without a name is gone with its last handle; near enough is with its name.
        self.names.values().map(|file| self.files[file].now.len() as u64).sum()
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        if inner.operate()?.is_some() {
            return Err(broken());
        }
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.last_file += 1;
        let file = inner.last_file;
        inner.files.insert(file, Node::default());
        inner.names.insert(name.to_owned(), file);
        Ok(self.open_handle(file, inner.generation))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.lock();
        let file = inner.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.open_handle(file, inner.generation))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.operate()?.is_some() {
            return Err(broken());
        }
        inner.names.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.operate()?.is_some() {
            return Err(broken());
        }
        inner.durable_names = inner.names.clone();
        Ok(())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let inner = self.lock();
        let available = inner.capacity.saturating_sub(inner.used());
        Ok(DiskSpace { total: inner.capacity, available, new_files: true, read_only: false })
    }
}

struct Handle {
    disk: FaultyDisk,
    file: u64,
    generation: u64,
}

impl Handle {
    /// The node, with room for growth to `end`, after counting the operation.
    fn edit(&self, end: u64, build: impl FnOnce(Option<Fault>) -> io::Result<Edit>) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if inner.generation != self.generation {
            return Err(io::Error::other("a handle of before the restart"));
        }
        let fault = inner.operate()?;
        let edit = build(fault)?;
        let (used, capacity) = (inner.used(), inner.capacity);
        let node = inner.files.get_mut(&self.file).ok_or_else(broken)?;
        let growth = end.saturating_sub(node.now.len() as u64);
        if growth != 0 && used + growth > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        edit.apply(&mut node.now);
        node.recent.push(edit);
        Ok(())
    }
}

impl DiskFile for Handle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files.get(&self.file).ok_or_else(broken)?.now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.lock();
        let bytes = &inner.files.get(&self.file).ok_or_else(broken)?.now;
        let rest = bytes.get(offset as usize..).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut taken = bytes.len();
        self.edit(offset + taken as u64, |fault| match fault {
            Some(Fault::Short) if bytes.len() > 1 => {
                taken = bytes.len() / 2;
                Ok(Edit::Write(offset, bytes[..taken].to_vec()))
            }
            Some(_) => Err(broken()),
            None => Ok(Edit::Write(offset, bytes.to_vec())),
        })?;
        Ok(taken)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let length = self.length()?.max(offset + len);
        self.edit(length, |fault| if fault.is_some() { Err(broken()) } else { Ok(Edit::Length(length)) })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.edit(len, |fault| if fault.is_some() { Err(broken()) } else { Ok(Edit::Length(len)) })
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if inner.generation != self.generation {
            return Err(io::Error::other("a handle of before the restart"));
        }
        let fault = inner.operate()?;
        let node = inner.files.get_mut(&self.file).ok_or_else(broken)?;
        let recent = std::mem::take(&mut node.recent);
        if fault.is_some() {
            return Err(broken());
        }
        for edit in recent {
            edit.apply(&mut node.durable);
        }
        Ok(())
    }
}
