//! What lies on a simulated disk, and what of it survives the power.
//!
//! A file knows, for every sector that is not surely on the medium, all contents the sector has had
//! since it surely was: the kernel may have written back any one of them. A directory knows its
//! durable entries and the changes since. A power cut picks one possibility.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The unit that the medium writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

/// A small seeded generator (splitmix64): one seed, one history.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..sides`.
    pub(super) fn below(&mut self, sides: usize) -> usize {
        (self.roll() % sides as u64) as usize
    }

    pub(super) fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

/// How a power cut treats the unsynced changes of one file or directory.
#[derive(Clone, Copy)]
enum Loss {
    /// Nothing unsynced survives.
    All,
    /// Everything survives.
    None,
    /// The changes up to one of them survive, and that one may be torn.
    Tail,
    /// Each change survives or not, whatever the others do.
    Changes,
    /// Each sector survives as of some moment, whatever the others do.
    Sectors,
}

impl Loss {
    fn pick(dice: &mut Dice) -> Self {
        [Self::All, Self::None, Self::Tail, Self::Changes, Self::Sectors][dice.below(5)]
    }
}

/// What a sector was before a write.
#[derive(Clone, Debug)]
struct Before {
    /// The number of the write, per file.
    write: u64,
    content: Box<Sector>,
}

#[derive(Clone, Debug, Default)]
struct Unsynced {
    /// The contents before each write since the sector was surely durable; the first is durable.
    before: Vec<Before>,
    /// Whether the next sync writes the sector. It no longer does after a failed one.
    dirty: bool,
}

/// One file: the page cache, and what the medium may hold instead.
#[derive(Clone, Debug, Default)]
pub(super) struct FileContent {
    cache: Vec<u8>,
    unsynced: BTreeMap<u64, Unsynced>,
    /// The sizes before each growth since the size was surely durable; the first is durable.
    sizes_before: Vec<(u64, u64)>,
    size_dirty: bool,
    writes: u64,
}

impl FileContent {
    pub(super) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.cache
    }

    /// Writes to the page cache only.
    pub(super) fn write(&mut self, position: u64, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return;
        }
        let start = position as usize;
        let end = start + length;
        self.writes += 1;
        if end > self.cache.len() {
            self.sizes_before.push((self.writes, self.len()));
            self.cache.resize(end, 0);
        }
        // A page beyond the durable size takes the size along when it is written back.
        let durable_size = self.sizes_before.first().map_or(u64::MAX, |&(_, size)| size);
        self.size_dirty |= end as u64 > durable_size;
        for sector in start / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let content = Box::new(self.sector(sector));
            let unsynced = self.unsynced.entry(sector as u64).or_default();
            unsynced.before.push(Before { write: self.writes, content });
            unsynced.dirty = true;
        }
        let mut at = start;
        for part in parts {
            self.cache[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }

    fn sector(&self, sector: usize) -> Sector {
        let mut content = [0; SECTOR_BYTES];
        let start = (sector * SECTOR_BYTES).min(self.cache.len());
        let end = (start + SECTOR_BYTES).min(self.cache.len());
        content[..end - start].copy_from_slice(&self.cache[start..end]);
        content
    }

    /// Makes durable what a sync still writes.
    pub(super) fn sync(&mut self) {
        self.unsynced.retain(|_, sector| !sector.dirty);
        if self.size_dirty {
            self.sizes_before.clear();
            self.size_dirty = false;
        }
    }

    /// A failed sync: as on Linux, the pages count as clean from now on, though they may never
    /// have reached the medium.
    pub(super) fn sync_failed(&mut self) {
        for sector in self.unsynced.values_mut() {
            sector.dirty = false;
        }
        self.size_dirty = false;
    }

    /// Flips one bit, durably and silently.
    pub(super) fn corrupt(&mut self, position: u64) -> bool {
        let Some(byte) = self.cache.get_mut(position as usize) else { return false };
        *byte ^= 1;
        if let Some(sector) = self.unsynced.get_mut(&(position / SECTOR_BYTES as u64)) {
            for before in &mut sector.before {
                before.content[position as usize % SECTOR_BYTES] ^= 1;
            }
        }
        true
    }

    /// What the medium holds after the power was cut.
    pub(super) fn power_cut(&self, dice: &mut Dice) -> Self {
        let loss = Loss::pick(dice);
        // Tail: writes before `cut` survive, `cut` itself by sectors.
        let lost = self.unsynced.values().filter_map(|sector| sector.before.first());
        let first = lost.map(|before| before.write).min().unwrap_or(self.writes);
        let cut = first + dice.roll() % (self.writes - first + 2);
        let kept: Vec<bool> = if matches!(loss, Loss::Changes) {
            (0..=self.writes).map(|_| dice.coin()).collect()
        } else {
            Vec::new()
        };
        let survives = |write: u64, last: u64, dice: &mut Dice| match loss {
            Loss::All => false,
            Loss::None => true,
            Loss::Tail => write < cut || (write == cut && dice.coin()),
            Loss::Changes => kept[write as usize],
            // Chosen below, per sector: each of the contents is equally likely.
            Loss::Sectors => write <= last,
        };
        let mut content = self.cache.clone();
        let mut size = self.sizes_before.first().map_or(self.len(), |&(_, size)| size);
        for (at, &(write, _)) in self.sizes_before.iter().enumerate() {
            let grown = self.sizes_before.get(at + 1).map_or(self.len(), |&(_, size)| size);
            let last = if dice.coin() { u64::MAX } else { 0 };
            if survives(write, last, dice) {
                size = grown;
            }
        }
        content.resize(size as usize, 0);
        for (&sector, unsynced) in &self.unsynced {
            let versions = unsynced.before.len();
            let last = match dice.below(versions + 1) {
                0 => 0,
                number => unsynced.before[number - 1].write,
            };
            // The last write that reached the medium brought the whole sector with it.
            let reached =
                unsynced.before.iter().rposition(|before| survives(before.write, last, dice));
            let next = reached.map_or(0, |reached| reached + 1);
            if let Some(lost) = unsynced.before.get(next) {
                let start = (sector as usize * SECTOR_BYTES).min(content.len());
                let end = (start + SECTOR_BYTES).min(content.len());
                content[start..end].copy_from_slice(&lost.content[..end - start]);
            }
        }
        Self { cache: content, ..Self::default() }
    }
}

/// A file, shared by its directory and its handles.
pub(super) type FileNode = Arc<Mutex<FileContent>>;

/// A directory, shared by its parent's entries and their past.
pub(super) type DirNode = Arc<Mutex<Dir>>;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

impl Node {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => Arc::ptr_eq(a, b),
            (Self::Dir(a), Self::Dir(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    fn power_cut(&self, dice: &mut Dice) -> Self {
        match self {
            Self::File(file) => Self::File(Arc::new(Mutex::new(file.lock().power_cut(dice)))),
            Self::Dir(dir) => Self::Dir(Arc::new(Mutex::new(dir.lock().power_cut(dice)))),
        }
    }
}

/// A change of a directory that is not surely durable.
#[derive(Clone, Debug)]
enum Change {
    Link(String, Node),
    Unlink(String),
    Rename { from: String, to: String, node: Node },
}

impl Change {
    fn touches(&self, name: &str) -> bool {
        match self {
            Self::Link(of, _) | Self::Unlink(of) => of == name,
            Self::Rename { from, to, .. } => from == name || to == name,
        }
    }
}

/// One directory: its present entries, and what the medium may hold instead.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) entries: BTreeMap<String, Node>,
    /// The changes since the last sync, oldest first.
    changes: Vec<Change>,
    /// The durable entries of the names that `changes` touch.
    durable: BTreeMap<String, Node>,
}

impl Dir {
    pub(super) fn link(&mut self, name: &str, node: Node) {
        self.remember(name);
        self.changes.push(Change::Link(name.to_owned(), node.clone()));
        self.entries.insert(name.to_owned(), node);
    }

    pub(super) fn unlink(&mut self, name: &str) {
        self.remember(name);
        self.changes.push(Change::Unlink(name.to_owned()));
        self.entries.remove(name);
    }

    /// Whether there was a `from`.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(node) = self.entries.get(from).cloned() else { return false };
        self.remember(from);
        self.remember(to);
        self.entries.remove(from);
        self.entries.insert(to.to_owned(), node.clone());
        self.changes.push(Change::Rename { from: from.to_owned(), to: to.to_owned(), node });
        true
    }

    /// Keeps the durable entry of a name before its first change.
    fn remember(&mut self, name: &str) {
        if self.changes.iter().any(|change| change.touches(name)) {
            return;
        }
        if let Some(node) = self.entries.get(name) {
            self.durable.insert(name.to_owned(), node.clone());
        }
    }

    pub(super) fn sync(&mut self) {
        self.changes.clear();
        self.durable.clear();
    }

    /// What the medium holds after the power was cut: each unsynced change is kept or lost.
    pub(super) fn power_cut(&self, dice: &mut Dice) -> Self {
        let mut names = self.entries.clone();
        names.retain(|name, _| !self.changes.iter().any(|change| change.touches(name)));
        names.extend(self.durable.clone());
        let loss = Loss::pick(dice);
        let cut = dice.below(self.changes.len() + 1);
        for (number, change) in self.changes.iter().enumerate() {
            let kept = match loss {
                Loss::All => false,
                Loss::None => true,
                Loss::Tail => number < cut,
                Loss::Changes | Loss::Sectors => dice.coin(),
            };
            match change {
                _ if !kept => {}
                Change::Link(name, node) => _ = names.insert(name.clone(), node.clone()),
                Change::Unlink(name) => _ = names.remove(name),
                Change::Rename { to, node, .. } => {
                    names.retain(|_, other| !other.same(node)); // one file, one name
                    names.insert(to.clone(), node.clone());
                }
            }
        }
        let entries = names.into_iter().map(|(name, node)| (name, node.power_cut(dice))).collect();
        Self { entries, ..Self::default() }
    }
}

/// Copies a tree, so that the copy is shared with nobody. Nodes that are one stay one.
#[derive(Default)]
pub(super) struct Copier {
    /// By the address of the original. Looked up only, so that addresses decide nothing.
    files: BTreeMap<usize, FileNode>,
    dirs: BTreeMap<usize, DirNode>,
}

impl Copier {
    pub(super) fn dir(&mut self, of: &DirNode) -> DirNode {
        let address = Arc::as_ptr(of) as usize;
        if let Some(copy) = self.dirs.get(&address) {
            return copy.clone();
        }
        let dir = of.lock();
        let changes = dir.changes.iter().map(|change| match change {
            Change::Link(name, node) => Change::Link(name.clone(), self.node(node)),
            Change::Unlink(name) => Change::Unlink(name.clone()),
            Change::Rename { from, to, node } => {
                Change::Rename { from: from.clone(), to: to.clone(), node: self.node(node) }
            }
        });
        let changes = changes.collect();
        let mut names = |names: &BTreeMap<String, Node>| {
            names.iter().map(|(name, node)| (name.clone(), self.node(node))).collect()
        };
        let (entries, durable) = (names(&dir.entries), names(&dir.durable));
        let copy = Arc::new(Mutex::new(Dir { entries, changes, durable }));
        self.dirs.insert(address, copy.clone());
        copy
    }

    fn node(&mut self, of: &Node) -> Node {
        match of {
            Node::Dir(dir) => Node::Dir(self.dir(dir)),
            Node::File(file) => {
                let copy = || Arc::new(Mutex::new(file.lock().clone()));
                let address = Arc::as_ptr(file) as usize;
                Node::File(self.files.entry(address).or_insert_with(copy).clone())
            }
        }
    }
}
