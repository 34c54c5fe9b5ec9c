//! A disk in memory that fails and loses power where it is told to, and then has what survives: all that was synced, and of
//! the rest what a seed chooses.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Component, Path};
use std::rc::Rc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use train::checkpoint::{NewFile, Storage};

/// What goes wrong. Operations are counted from 1.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Nothing.
    None,
    /// Nothing happens any more after so many operations.
    PowerLossAfter(usize),
    /// One operation fails.
    Once(usize, ErrorKind),
    /// All operations from there on that need space fail.
    From(usize, ErrorKind),
    /// Writes take a few bytes at a time, and every third is interrupted.
    ShortWrites,
}

#[derive(Debug, Clone)]
enum Node {
    File { content: Vec<u8>, synced: Vec<u8>, unsynced: Vec<Vec<u8>> },
    Folder { names: BTreeMap<String, usize>, synced: BTreeMap<String, usize>, unsynced: Vec<Change> },
}

/// A change of a folder's names.
#[derive(Debug, Clone)]
enum Change {
    Add(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// The disk. A clone shares it; [`copy`](Self::copy) does not.
#[derive(Debug, Clone)]
pub struct LossyDisk {
    nodes: Rc<RefCell<Vec<Node>>>,
    fault: Rc<Cell<Fault>>,
    n_operations: Rc<Cell<usize>>,
}

fn folder(names: BTreeMap<String, usize>) -> Node {
    Node::Folder { synced: names.clone(), names, unsynced: Vec::new() }
}

fn refuse<T>(kind: ErrorKind) -> io::Result<T> {
    Err(io::Error::from(kind))
}

impl LossyDisk {
    pub fn new() -> Self {
        Self::of(vec![folder(BTreeMap::new())])
    }

    fn of(nodes: Vec<Node>) -> Self {
        Self {
            nodes: Rc::new(RefCell::new(nodes)),
            fault: Rc::new(Cell::new(Fault::None)),
            n_operations: Rc::new(Cell::new(0)),
        }
    }

    pub fn copy(&self) -> Self {
        Self::of(self.nodes.borrow().clone())
    }

    /// Begins to count anew, with `fault` to come.
    pub fn set_fault(&self, fault: Fault) {
        self.fault.set(fault);
        self.n_operations.set(0);
    }

    pub fn n_operations(&self) -> usize {
        self.n_operations.get()
    }

    /// What is found when the power is back.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        let mut survive = |node: &Node| match node {
            Node::File { synced, unsynced, .. } => {
                let mut content = synced.clone();
                for write in unsynced {
                    match draw.random_range(0..4) {
                        0 => content.extend(write),
                        1 => content.extend(&write[..draw.random_range(0..=write.len())]),
                        // Its length was stored, its bytes were not.
                        2 => content.extend(write.iter().map(|_| 0)),
                        _ => {}
                    }
                }
                Node::File { synced: content.clone(), content, unsynced: Vec::new() }
            }
            Node::Folder { synced, unsynced, .. } => {
                let mut names = synced.clone();
                unsynced.iter().filter(|_| draw.random_bool(0.5)).for_each(|change| change.apply(&mut names));
                folder(names)
            }
        };
        Self::of(self.nodes.borrow().iter().map(&mut survive).collect())
    }

    /// Changes bytes of a file in place.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let node = self.find(path)?;
        match &mut self.nodes.borrow_mut()[node] {
            Node::File { content, .. } => {
                change(content);
                Ok(())
            }
            Node::Folder { .. } => refuse(ErrorKind::IsADirectory),
        }
    }

    /// Counts an operation, and fails it if its time has come. `needs_space` tells the operations that a full disk fails.
    fn tick(&self, needs_space: bool) -> io::Result<()> {
        let n = self.n_operations.get() + 1;
        self.n_operations.set(n);
        match self.fault.get() {
            Fault::PowerLossAfter(last) if n > last => Err(io::Error::other("the power is gone")),
            Fault::Once(at, kind) if n == at => refuse(kind),
            Fault::From(first, kind) if n >= first && needs_space => refuse(kind),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        // "." is where one is.
        let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
        for part in parts.filter_map(|part| part.as_os_str().to_str()) {
            match &self.nodes.borrow()[at] {
                Node::Folder { names, .. } => at = *names.get(part).ok_or(ErrorKind::NotFound)?,
                Node::File { .. } => return refuse(ErrorKind::NotADirectory),
            }
        }
        Ok(at)
    }

    /// Changes the names of the folder that `path` lies in.
    fn change(&self, path: &Path, make: impl FnOnce(String) -> Change) -> io::Result<()> {
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(ErrorKind::InvalidInput)?;
        match &mut self.nodes.borrow_mut()[parent] {
            Node::Folder { names, unsynced, .. } => {
                let change = make(name.into());
                change.apply(names);
                unsynced.push(change);
                Ok(())
            }
            Node::File { .. } => refuse(ErrorKind::NotADirectory),
        }
    }

    fn add(&self, path: &Path, node: Node) -> io::Result<usize> {
        if self.find(path).is_ok() {
            return refuse(ErrorKind::AlreadyExists);
        }
        self.nodes.borrow_mut().push(node);
        let id = self.nodes.borrow().len() - 1;
        self.change(path, |name| Change::Add(name, id))?;
        Ok(id)
    }
}

impl Storage for LossyDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.tick(true)?;
        self.add(path, folder(BTreeMap::new())).map(drop)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.tick(true)?;
        let file = Node::File { content: Vec::new(), synced: Vec::new(), unsynced: Vec::new() };
        Ok(Box::new(OpenFile { node: self.add(path, file)?, disk: self.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        self.tick(false)?;
        match &self.nodes.borrow()[self.find(path)?] {
            Node::File { content, .. } => Ok((Box::new(io::Cursor::new(content.clone())), content.len() as u64)),
            Node::Folder { .. } => refuse(ErrorKind::IsADirectory),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.tick(false)?;
        match &self.nodes.borrow()[self.find(path)?] {
            Node::Folder { names, .. } => Ok(names.keys().cloned().collect()),
            Node::File { .. } => refuse(ErrorKind::NotADirectory),
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.tick(true)?;
        let node = self.find(path)?;
        if let Node::Folder { names, synced, unsynced } = &mut self.nodes.borrow_mut()[node] {
            synced.clone_from(names);
            unsynced.clear();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tick(true)?;
        let node = self.find(from)?;
        if self.find(to).is_ok() || from.parent() != to.parent() {
            return refuse(ErrorKind::AlreadyExists);
        }
        let from = from.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        self.change(to, |to| Change::Rename(from, to, node))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.tick(false)?;
        self.find(path)?;
        self.change(path, Change::Remove)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.tick(false)?;
        match &self.nodes.borrow()[self.find(path)?] {
            Node::Folder { names, .. } if names.is_empty() => {}
            _ => return refuse(ErrorKind::DirectoryNotEmpty),
        }
        self.change(path, Change::Remove)
    }
}

struct OpenFile {
    node: usize,
    disk: LossyDisk,
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.tick(true)?;
        let mut n = bytes.len();
        if matches!(self.disk.fault.get(), Fault::ShortWrites) {
            if self.disk.n_operations().is_multiple_of(3) {
                return refuse(ErrorKind::Interrupted);
            }
            n = n.min(7);
        }
        if let Node::File { content, unsynced, .. } = &mut self.disk.nodes.borrow_mut()[self.node] {
            content.extend(&bytes[..n]);
            unsynced.push(bytes[..n].to_vec());
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for OpenFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.tick(true)?;
        if let Node::File { content, synced, unsynced } = &mut self.disk.nodes.borrow_mut()[self.node] {
            synced.clone_from(content);
            unsynced.clear();
        }
        Ok(())
    }
}
