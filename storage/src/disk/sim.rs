//! A disk in memory that crashes, tears, loses what was not synced, fills up and fails.
//!
//! Everything is decided by seeds and by the count of operations, so that a failing history can be
//! replayed, and a test can fail every single operation of a history in turn. Time is not
//! simulated: a test reads the cost from the counters.
//!
//! What dies: [`SimDisk::power_cut`] keeps what was synced and any part of what was not, by sectors
//! of 512 bytes; [`SimDisk::crash`] keeps the page cache too, as the death of a process does. Both
//! give a new disk; every handle of the old one answers with errors from then on.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use self::medium::{Copier, Dice, DirNode, FileContent, FileNode, Node};
use super::{Disk, DiskFile};

mod medium;

/// What a failing operation reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No space is left (`ENOSPC`).
    Full,
    /// The device failed (`EIO`).
    Io,
}

impl Fault {
    fn error(self) -> io::Error {
        // The numbers of Linux, so that `kind()` is what a real disk gives.
        io::Error::from_raw_os_error(match self {
            Self::Full => 28,
            Self::Io => 5,
        })
    }
}

/// Which operation fails, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultPlan {
    /// The number of the operation, as counted by [`SimDisk::op_count`] from 0.
    pub op: u64,
    /// What it reports.
    pub fault: Fault,
    /// How many bytes a failing write still writes, in 1/256 of its length: 0 is none, 256 all.
    pub written: u16,
    /// Whether every later operation fails too, until [`SimDisk::heal`].
    pub lasting: bool,
    /// Whether operations that need no room work all the same: a disk that is full.
    pub spares_roomless: bool,
}

impl FaultPlan {
    /// One operation fails without any effect.
    pub fn once(op: u64, fault: Fault) -> Self {
        Self { op, fault, written: 0, lasting: false, spares_roomless: false }
    }

    /// From this operation on, which may be a torn write, nothing works any more.
    pub fn from(op: u64, fault: Fault) -> Self {
        Self { op, fault, written: 128, lasting: true, spares_roomless: false }
    }

    /// From this operation on the disk is full: what makes a file or lets one grow fails, and the
    /// first that does is a short write.
    pub fn full(op: u64) -> Self {
        Self { spares_roomless: true, ..Self::from(op, Fault::Full) }
    }
}

/// An operation that was made to fail.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Failed {
    /// `create`, `write`, `sync` …
    pub what: &'static str,
    /// On what.
    pub path: PathBuf,
}

/// What a disk was asked to do so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskCost {
    /// Operations that change something: create, write, sync, sync of a directory, rename, remove.
    pub ops: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
}

#[derive(Debug, Default)]
struct State {
    dead: bool,
    cost: DiskCost,
    plan: Option<FaultPlan>,
    failed: Vec<Failed>,
    /// Bytes that all files together may have.
    space: Option<u64>,
}

/// The simulated disk; a clone is another handle of the same one.
#[derive(Clone)]
pub struct SimDisk {
    seed: u64,
    state: Arc<Mutex<State>>,
    root: DirNode,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("state", &self.state).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk. The seed colors every later [`SimDisk::power_cut`].
    pub fn new(seed: u64) -> Self {
        Self { seed, state: Arc::default(), root: DirNode::default() }
    }

    /// The power fails: what was synced survives, of the rest a random part. This disk is dead.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut dice = Dice::new(self.seed ^ seed.rotate_left(32));
        self.state.lock().dead = true;
        let root = Arc::new(Mutex::new(self.root.lock().power_cut(&mut dice)));
        Self { seed: dice.roll(), state: self.fresh_state(), root }
    }

    /// The process dies: the page cache survives whole, synced or not. This disk is dead.
    #[must_use]
    pub fn crash(&self) -> Self {
        self.state.lock().dead = true;
        self.fork()
    }

    /// An equal disk with a life of its own: healthy, and with counters at zero.
    #[must_use]
    pub fn fork(&self) -> Self {
        let root = Copier::default().dir(&self.root);
        Self { seed: self.seed, state: self.fresh_state(), root }
    }

    fn fresh_state(&self) -> Arc<Mutex<State>> {
        let space = self.state.lock().space;
        Arc::new(Mutex::new(State { space, ..State::default() }))
    }

    /// Plans a failure, in place of any other.
    pub fn fail(&self, plan: FaultPlan) {
        self.state.lock().plan = Some(plan);
    }

    /// Ends and forgets planned failures.
    pub fn heal(&self) {
        self.state.lock().plan = None;
    }

    /// Bounds the bytes that all files together may have; `None` is no bound.
    pub fn set_space(&self, space: Option<u64>) {
        self.state.lock().space = space;
    }

    /// Flips one bit of a file, durably: latent damage. Returns whether there is such a byte.
    pub fn corrupt(&self, path: &Path, position: u64) -> bool {
        self.file(path).is_ok_and(|file| file.lock().corrupt(position))
    }

    /// Every file with its content as a reader sees it.
    pub fn tree(&self) -> BTreeMap<PathBuf, Bytes> {
        fn walk(dir: &DirNode, path: &Path, tree: &mut BTreeMap<PathBuf, Bytes>) {
            for (name, node) in &dir.lock().entries {
                let path = path.join(name);
                match node {
                    Node::Dir(dir) => walk(dir, &path, tree),
                    Node::File(file) => {
                        tree.insert(path, Bytes::copy_from_slice(file.lock().bytes()));
                    }
                }
            }
        }
        let mut tree = BTreeMap::new();
        walk(&self.root, Path::new(""), &mut tree);
        tree
    }

    /// What the disk was asked to do so far.
    pub fn cost(&self) -> DiskCost {
        self.state.lock().cost
    }

    /// How many operations changed something or tried to: the number of the next one.
    pub fn op_count(&self) -> u64 {
        self.cost().ops
    }

    /// What was made to fail so far, in order.
    pub fn failed(&self) -> Vec<Failed> {
        self.state.lock().failed.clone()
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.state.lock().dead { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    /// Counts an operation; `Err` with the 1/256 still written if it is to fail.
    fn begin(
        &self,
        what: &'static str,
        path: &Path,
        needs_room: bool,
    ) -> Result<(), (u16, io::Error)> {
        let mut state = self.state.lock();
        if state.dead {
            return Err((0, io::Error::other("the disk is gone")));
        }
        let op = state.cost.ops;
        state.cost.ops += 1;
        let Some(plan) = state.plan.filter(|plan| needs_room || !plan.spares_roomless) else {
            return Ok(());
        };
        let is_first = plan.op == op;
        if is_first || plan.lasting && plan.op < op {
            state.failed.push(Failed { what, path: path.to_owned() });
            return Err((if is_first { plan.written } else { 0 }, plan.fault.error()));
        }
        Ok(())
    }

    fn change(&self, what: &'static str, path: &Path) -> io::Result<()> {
        let needs_room = what == "create";
        self.begin(what, path, needs_room).map_err(|(_, error)| error)
    }

    fn dir(&self, path: &Path) -> io::Result<DirNode> {
        let mut dir = self.root.clone();
        for name in names(path)? {
            let next = match dir.lock().entries.get(&name) {
                Some(Node::Dir(next)) => next.clone(),
                Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => return Err(not_found(path)),
            };
            dir = next;
        }
        Ok(dir)
    }

    /// The directory of a path, and the last name.
    fn parent(&self, path: &Path) -> io::Result<(DirNode, String)> {
        let name = names(path)?.pop().ok_or(ErrorKind::InvalidInput)?;
        let dir = self.dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name))
    }

    fn file(&self, path: &Path) -> io::Result<FileNode> {
        let (dir, name) = self.parent(path)?;
        let dir = dir.lock();
        match dir.entries.get(&name) {
            Some(Node::File(file)) => Ok(file.clone()),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(not_found(path)),
        }
    }

    /// How many bytes the files may still grow together.
    fn room(&self) -> u64 {
        fn used(dir: &DirNode) -> u64 {
            let size = |node: &Node| match node {
                Node::File(file) => file.lock().len(),
                Node::Dir(dir) => used(dir),
            };
            dir.lock().entries.values().map(size).sum()
        }
        let space = self.state.lock().space;
        space.map_or(u64::MAX, |space| space.saturating_sub(used(&self.root)))
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.change("create", path)?;
        let (dir, name) = self.parent(path)?;
        let mut dir = dir.lock();
        if dir.entries.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let content = FileNode::default();
        dir.link(&name, Node::File(content.clone()));
        Ok(Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), content, capacity }))
    }

    fn open(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.check_alive()?;
        let content = self.file(path)?;
        let capacity = capacity.max(content.lock().len());
        Ok(Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), content, capacity }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change("remove", path)?;
        self.file(path)?;
        let (dir, name) = self.parent(path)?;
        dir.lock().unlink(&name);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change("rename", from)?;
        let (dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        if !Arc::ptr_eq(&dir, &to_dir) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if dir.lock().rename(&from_name, &to_name) { Ok(()) } else { Err(not_found(from)) }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change("create", path)?;
        let mut dir = self.root.clone();
        for name in names(path)? {
            let next = match dir.lock().entries.get(&name) {
                Some(Node::Dir(next)) => Some(next.clone()),
                Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => None,
            };
            dir = next.unwrap_or_else(|| {
                let next = DirNode::default();
                dir.lock().link(&name, Node::Dir(next.clone()));
                next
            });
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fn empty(dir: &DirNode) {
            let mut dir = dir.lock();
            let entries: Vec<(String, Node)> =
                dir.entries.iter().map(|(name, node)| (name.clone(), node.clone())).collect();
            for (name, node) in entries {
                if let Node::Dir(child) = node {
                    empty(&child);
                }
                dir.unlink(&name);
            }
        }
        self.change("remove", path)?;
        match self.dir(path) {
            Ok(dir) => empty(&dir),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let (parent, name) = self.parent(path)?;
        parent.lock().unlink(&name);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check_alive()?;
        match self.dir(dir) {
            Ok(dir) => Ok(dir.lock().entries.keys().cloned().collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change("sync", dir)?;
        self.dir(dir)?.lock().sync();
        self.state.lock().cost.syncs += 1;
        Ok(())
    }
}

/// The names on a path, which must be plain and relative.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    };
    let names: Option<_> = path.components().map(name).collect();
    names.ok_or_else(|| ErrorKind::InvalidInput.into())
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, path.display().to_string())
}

/// An open file of a simulated disk.
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    content: FileNode,
    capacity: u64,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SimFile {
    fn write_some(&self, position: u64, parts: &[IoSlice<'_>], mut length: u64) -> u64 {
        let mut some = Vec::with_capacity(parts.len());
        let mut written = 0;
        for part in parts {
            let take = length.min(part.len() as u64);
            some.push(&part[..take as usize]);
            length -= take;
            written += take;
        }
        self.content.lock().write(position, &some);
        self.disk.state.lock().cost.bytes_written += written;
        written
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let end = super::check_write(position, length, self.capacity)?;
        let size = self.content.lock().len();
        if let Err((written, error)) = self.disk.begin("write", &self.path, end > size) {
            self.write_some(position, parts, length * u64::from(written) / 256);
            return Err(error);
        }
        let room = self.disk.room();
        if end.saturating_sub(size) > room {
            let fits = (size + room).saturating_sub(position);
            self.write_some(position, parts, fits.min(length));
            let failed = Failed { what: "write", path: self.path.clone() };
            self.disk.state.lock().failed.push(failed);
            return Err(Fault::Full.error());
        }
        self.write_some(position, parts, length);
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.check_alive()?;
        let content = self.content.lock();
        let bytes = content.bytes();
        let start = (position.min(bytes.len() as u64)) as usize;
        let end = (start + buffer.len()).min(bytes.len());
        buffer[..end - start].copy_from_slice(&bytes[start..end]);
        Ok(end - start)
    }

    fn sync(&self) -> io::Result<()> {
        if let Err((_, error)) = self.disk.begin("sync", &self.path, false) {
            self.content.lock().sync_failed();
            return Err(error);
        }
        self.content.lock().sync();
        self.disk.state.lock().cost.syncs += 1;
        Ok(())
    }

    fn start_write_back(&self, _: Range<u64>) {
        // Unsynced bytes may survive a power cut anyway.
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.check_alive()?;
        Ok(self.content.lock().len())
    }

    fn slice(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.disk.check_alive()?;
        let content: &FileContent = &self.content.lock();
        super::check_slice(&range, content.len(), self.capacity)?;
        Ok(Bytes::copy_from_slice(&content.bytes()[range.start as usize..range.end as usize]))
    }
}

#[cfg(test)]
mod tests;
