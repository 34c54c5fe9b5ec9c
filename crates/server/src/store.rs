//! What is kept between requests, in one database file.
//!
//! Documents belong to a caller and keep the order in which they were made. Every change is one transaction that is on the
//! disk when the call returns: a crash loses nothing that was answered, and leaves nothing half done.

use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::keys::Caller;

/// Kind, caller and name of a document → its place in the order (8 bytes, lowest first) and its JSON.
const DOCUMENTS: TableDefinition<(u8, u64, &str), &[u8]> = TableDefinition::new("documents");
/// Kind, caller and place in the order → name.
const ORDER: TableDefinition<(u8, u64, u64), &str> = TableDefinition::new("order");
/// Name of a file → its bytes.
const BYTES: TableDefinition<&str, &[u8]> = TableDefinition::new("bytes");
/// Name of a batch and number of a line → its result.
const LINES: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("lines");

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A response with its input.
    Response = 1,
    /// A file's description.
    File = 2,
    /// A batch.
    Batch = 3,
    /// A chat's completion with its messages.
    Completion = 4,
}

/// The database. In memory only, unless it has a file.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

/// Why the database can not be used.
#[derive(Debug, thiserror::Error)]
#[error("the store can not be used: {0}")]
pub struct StoreError(String);

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self(error.into().to_string())
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Listed<T> {
    /// Its documents.
    pub list: Vec<T>,
    /// Whether others follow.
    pub has_more: bool,
}

/// Which page of a list.
#[derive(Debug, Clone, Default)]
pub struct PageOf {
    /// After the document of this name.
    pub after: Option<String>,
    /// So many at most.
    pub limit: usize,
    /// Oldest first.
    pub is_ascending: bool,
}

impl Store {
    /// The database in the file at `path`, made if it is not there. One process at a time.
    ///
    /// # Errors
    /// [`StoreError`] if the file can not be opened, is in use, or is no database.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self { database: Database::create(path)? }.with_tables()
    }

    /// A database that is gone with the process.
    ///
    /// # Errors
    /// [`StoreError`] if there is no memory for it.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self { database: Database::builder().create_with_backend(InMemoryBackend::new())? }.with_tables()
    }

    fn with_tables(self) -> Result<Self, StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(DOCUMENTS)?;
        write.open_table(ORDER)?;
        write.open_table(BYTES)?;
        write.open_table(LINES)?;
        write.commit()?;
        Ok(self)
    }

    /// Keeps a document, new or changed. Of new ones the oldest goes when there are more than `limit`.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn put(
        &self,
        kind: Kind,
        Caller(caller): Caller,
        (id, document): (&str, &impl Serialize),
        limit: usize,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_vec(document).map_err(|error| StoreError(error.to_string()))?;
        let kind = kind as u8;
        let write = self.database.begin_write()?;
        {
            let mut documents = write.open_table(DOCUMENTS)?;
            let mut order = write.open_table(ORDER)?;
            let known = documents.get((kind, caller, id))?.and_then(|old| place(old.value()));
            let all = (kind, caller, 0)..=(kind, caller, u64::MAX);
            let place = match known {
                Some(place) => place,
                None => {
                    let last = order.range(all.clone())?.next_back().transpose()?;
                    let place = last.map_or(0, |(key, _)| key.value().2) + 1;
                    order.insert((kind, caller, place), id)?;
                    let n = order.range(all.clone())?.count();
                    let oldest = order.range(all)?.next().transpose()?;
                    let oldest = oldest.filter(|_| n > limit).map(|(key, id)| (key.value(), id.value().to_owned()));
                    if let Some((key, id)) = oldest {
                        order.remove(key)?;
                        documents.remove((kind, caller, id.as_str()))?;
                    }
                    place
                }
            };
            let value = [&place.to_le_bytes()[..], &json].concat();
            documents.insert((kind, caller, id), value.as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    /// A document.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get<T: DeserializeOwned>(
        &self,
        kind: Kind,
        Caller(caller): Caller,
        id: &str,
    ) -> Result<Option<T>, StoreError> {
        let documents = self.database.begin_read()?.open_table(DOCUMENTS)?;
        let Some(value) = documents.get((kind as u8, caller, id))? else { return Ok(None) };
        read(value.value()).map(Some)
    }

    /// Changes a document that is there; `None` if it is not. Nobody comes in between.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn change<T: Serialize + DeserializeOwned>(
        &self,
        kind: Kind,
        Caller(caller): Caller,
        id: &str,
        change: impl FnOnce(&mut T),
    ) -> Result<Option<T>, StoreError> {
        let key = (kind as u8, caller, id);
        let write = self.database.begin_write()?;
        let changed = {
            let mut documents = write.open_table(DOCUMENTS)?;
            let old = documents.get(key)?.map(|value| value.value().to_vec());
            let Some((old, place)) = old.and_then(|old| place(&old).map(|place| (old, place))) else {
                return Ok(None);
            };
            let mut document = read(&old)?;
            change(&mut document);
            let json = serde_json::to_vec(&document).map_err(|error| StoreError(error.to_string()))?;
            documents.insert(key, [&place.to_le_bytes()[..], &json].concat().as_slice())?;
            document
        };
        write.commit()?;
        Ok(Some(changed))
    }

    /// Takes a document away, with a file's bytes and a batch's results. Says whether it was there.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn delete(&self, kind: Kind, Caller(caller): Caller, id: &str) -> Result<bool, StoreError> {
        let write = self.database.begin_write()?;
        let was_there = {
            let mut documents = write.open_table(DOCUMENTS)?;
            let place = documents.remove((kind as u8, caller, id))?.and_then(|old| place(old.value()));
            if let Some(place) = place {
                write.open_table(ORDER)?.remove((kind as u8, caller, place))?;
                write.open_table(BYTES)?.remove(id)?;
                write.open_table(LINES)?.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
            }
            place.is_some()
        };
        write.commit()?;
        Ok(was_there)
    }

    /// A page of a caller's documents, newest first unless it says otherwise; `None` if `after` names none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list<T: DeserializeOwned>(
        &self,
        kind: Kind,
        Caller(caller): Caller,
        page: &PageOf,
    ) -> Result<Option<Listed<T>>, StoreError> {
        let kind = kind as u8;
        let read_only = self.database.begin_read()?;
        let (documents, order) = (read_only.open_table(DOCUMENTS)?, read_only.open_table(ORDER)?);
        let after = match &page.after {
            None => None,
            Some(id) => match documents.get((kind, caller, id.as_str()))?.and_then(|value| place(value.value())) {
                Some(place) => Some(place),
                None => return Ok(None),
            },
        };
        let (first, last) = match (after, page.is_ascending) {
            (None, _) => (0, u64::MAX),
            (Some(place), true) => (place.saturating_add(1), u64::MAX),
            (Some(place), false) => (0, place.saturating_sub(1)),
        };
        let mut range = order.range((kind, caller, first)..=(kind, caller, last))?;
        let mut next = || if page.is_ascending { range.next() } else { range.next_back() };
        let mut list = Vec::new();
        while let Some(entry) = next() {
            if list.len() == page.limit {
                return Ok(Some(Listed { list, has_more: true }));
            }
            let (_, id) = entry?;
            if let Some(value) = documents.get((kind, caller, id.value()))? {
                list.push(read(value.value())?);
            }
        }
        Ok(Some(Listed { list, has_more: false }))
    }

    /// All documents of a kind, with those they belong to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all<T: DeserializeOwned>(&self, kind: Kind) -> Result<Vec<(Caller, T)>, StoreError> {
        let documents = self.database.begin_read()?.open_table(DOCUMENTS)?;
        let mut all = Vec::new();
        for entry in documents.range((kind as u8, 0, "")..(kind as u8 + 1, 0, ""))? {
            let (key, value) = entry?;
            all.push((Caller(key.value().1), read(value.value())?));
        }
        Ok(all)
    }

    /// Keeps the bytes of a file.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn put_bytes(&self, id: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(BYTES)?.insert(id, bytes)?;
        write.commit()?;
        Ok(())
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bytes(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.database.begin_read()?.open_table(BYTES)?;
        Ok(table.get(id)?.map(|value| value.value().to_vec()))
    }

    /// Bytes of all files together.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn files_bytes(&self) -> Result<u64, StoreError> {
        let table = self.database.begin_read()?.open_table(BYTES)?;
        let mut sum = 0u64;
        for entry in table.iter()? {
            let (_, value) = entry?;
            sum = sum.saturating_add(u64::try_from(value.value().len()).unwrap_or(u64::MAX));
        }
        Ok(sum)
    }

    /// Keeps the result of a batch's line.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn put_line(&self, batch: &str, line: u64, result: &[u8]) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(LINES)?.insert((batch, line), result)?;
        write.commit()?;
        Ok(())
    }

    /// The results of a batch's lines that are there, by their numbers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lines(&self, batch: &str) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let table = self.database.begin_read()?.open_table(LINES)?;
        let mut lines = Vec::new();
        for entry in table.range((batch, 0)..=(batch, u64::MAX))? {
            let (key, value) = entry?;
            lines.push((key.value().1, value.value().to_vec()));
        }
        Ok(lines)
    }
}

fn place(value: &[u8]) -> Option<u64> {
    value.first_chunk::<8>().map(|place| u64::from_le_bytes(*place))
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, StoreError> {
    let json = value.get(8..).unwrap_or_default();
    serde_json::from_slice(json).map_err(|error| StoreError(format!("a document is damaged: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Caller = Caller(7);

    fn page(after: Option<&str>, limit: usize, is_ascending: bool) -> PageOf {
        PageOf { after: after.map(str::to_owned), limit, is_ascending }
    }

    #[test]
    fn documents_keep_their_order_their_owner_and_their_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.redb");
        let store = Store::open(&path).expect("a store");
        for (id, text) in [("b", "1"), ("a", "2"), ("c", "3"), ("a", "4")] {
            store.put(Kind::Response, ME, (id, &text), 3).expect("kept");
        }
        let list = |store: &Store, page: PageOf| {
            let listed = store.list::<String>(Kind::Response, ME, &page).expect("a list")?;
            Some((listed.list.concat(), listed.has_more))
        };
        assert_eq!(list(&store, page(None, 9, false)), Some(("341".into(), false)));
        assert_eq!(list(&store, page(None, 2, true)), Some(("14".into(), true)));
        assert_eq!(list(&store, page(Some("a"), 9, true)), Some(("3".into(), false)));
        assert_eq!(list(&store, page(Some("a"), 9, false)), Some(("1".into(), false)));
        assert_eq!(list(&store, page(Some("z"), 9, false)), None);
        assert_eq!(store.get::<String>(Kind::Response, Caller(8), "a").expect("a look"), None);
        assert_eq!(store.get::<String>(Kind::File, ME, "a").expect("a look"), None);
        assert!(!store.delete(Kind::Response, Caller(8), "a").expect("a look"));
        // The fourth document: the oldest goes.
        store.put(Kind::Response, ME, ("d", &"5"), 3).expect("kept");
        drop(store);
        let store = Store::open(&path).expect("the same store");
        assert_eq!(list(&store, page(None, 9, false)), Some(("534".into(), false)));
        let longer = |text: &mut String| text.push('!');
        assert_eq!(store.change(Kind::Response, ME, "a", longer).expect("a change"), Some("4!".into()));
        assert_eq!(store.change(Kind::Response, ME, "z", longer).expect("a look"), None);
        assert_eq!(store.get::<String>(Kind::Response, ME, "a").expect("a look"), Some("4!".into()));
        assert_eq!(list(&store, page(None, 9, false)), Some(("534!".into(), false)), "it keeps its place");
        assert!(store.delete(Kind::Response, ME, "c").expect("gone"));
        assert!(!store.delete(Kind::Response, ME, "c").expect("gone before"));
        assert_eq!(list(&store, page(None, 9, false)), Some(("54!".into(), false)));
        assert_eq!(store.all::<String>(Kind::Response).expect("all").len(), 2);
    }

    #[test]
    fn lines_and_bytes_go_with_what_they_belong_to() {
        let store = Store::in_memory().expect("a store");
        store.put(Kind::Batch, ME, ("x", &"batch"), 9).expect("kept");
        for line in [2, 0, 1] {
            store.put_line("x", line, format!("{line}").as_bytes()).expect("kept");
        }
        store.put_line("y", 0, b"other").expect("kept");
        let lines: Vec<u64> = store.lines("x").expect("lines").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [0, 1, 2]);
        assert!(store.delete(Kind::Batch, ME, "x").expect("gone"));
        assert!(store.lines("x").expect("no lines").is_empty());
        assert_eq!(store.lines("y").expect("a line").len(), 1);
        store.put_bytes("f", b"abc").expect("kept");
        assert_eq!((store.bytes("f").expect("bytes"), store.files_bytes().expect("a sum")), (Some(b"abc".into()), 3));
    }
}
