//! One file of settings: read, checked against the flags that there are.

use std::any::TypeId;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use toml_edit::{Document, Item, TableLike, Value};

use super::{commands, is_list, is_switch, keys};
use crate::failure::usage;

/// Bytes of a file at most.
const LIMIT_BYTES: u64 = 1 << 20;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `puna.toml` of the folder that one works in.
    Project,
    /// The user's own.
    User,
}

/// A file that was read, each of whose entries some command knows.
pub struct File {
    /// Whose it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    home: Option<PathBuf>,
    entries: Vec<Entry>,
}

/// A line of a file.
pub struct Entry {
    /// The command; `None` for all that have the key.
    table: Option<String>,
    key: String,
    /// From 1.
    pub line: usize,
    said: Said,
}

/// What an entry says.
enum Said {
    Switch(bool),
    One(String),
    Many(Vec<String>),
}

impl File {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Exit code 2, naming the line and what is known instead.
    pub fn open(kind: Kind, path: PathBuf, home: Option<&Path>, top: &Command) -> Result<Self> {
        let text = read(&path)?;
        let document = Document::parse(text.as_str()).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(&text, span.start));
            let why = error.message().replace('\n', ", ");
            usage(format!("{}:{line}: {why}", path.display()), "write TOML: [serve] on a line, then port = 9000")
        })?;
        let mut file = Self { kind, path, home: home.map(Path::to_owned), entries: Vec::new() };
        for (name, item) in document.iter() {
            let line = line_of(&text, document.as_table(), name);
            match item.as_table_like() {
                Some(table) => file.table(&text, (name, line), table, top)?,
                None => file.shared((name, line), item, top)?,
            }
        }
        Ok(file)
    }

    /// The entry of a flag of `command`; its own table's, if it has one.
    pub fn find(&self, command: &Command, arg: &Arg) -> Option<&Entry> {
        let mine = |table: Option<&str>| {
            self.entries.iter().find(|entry| entry.table.as_deref() == table && is_named(arg, &entry.key))
        };
        mine(Some(command.get_name())).or_else(|| mine(None))
    }

    /// Takes the table of one command.
    fn table(&mut self, text: &str, (name, line): (&str, usize), table: &dyn TableLike, top: &Command) -> Result<()> {
        let Some(command) = commands(top).find(|command| command.get_name() == name) else {
            let known = commands(top).map(Command::get_name);
            let why = format!("no command with settings is called \"{name}\"");
            return Err(self.unknown(line, &why, nearest(name, known), "puna --help"));
        };
        for (key, item) in table.iter() {
            let line = line_of(text, table, key);
            let Some(arg) = keys(command).find(|arg| is_named(arg, key)) else {
                let known = keys(command).filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
                let why = format!("{name} has no setting \"{key}\"");
                return Err(self.unknown(line, &why, nearest(key, known), &format!("puna {name} --help")));
            };
            let entry = self.entry((Some(name), key, line), item)?;
            if self.entries.iter().any(|other| other.table.as_deref() == Some(name) && is_named(arg, &other.key)) {
                let long = arg.get_long().unwrap_or_default();
                return Err(usage(format!("{}: {key} is said twice", self.at(line)), format!("say {long} once")));
            }
            self.check(command, arg, &entry)?;
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Takes an entry for all commands that have it.
    fn shared(&mut self, (key, line): (&str, usize), item: &Item, top: &Command) -> Result<()> {
        let all = || commands(top).flat_map(|command| keys(command).map(move |arg| (command, arg)));
        let known: Vec<(&Command, &Arg)> = all().filter(|(_, arg)| is_named(arg, key)).collect();
        if known.is_empty() {
            let names = all().filter(|(_, arg)| !arg.is_hide_set()).filter_map(|(_, arg)| arg.get_long());
            let tables = commands(top).map(Command::get_name);
            let why = format!("no command has a setting \"{key}\"");
            return Err(self.unknown(line, &why, nearest(key, names.chain(tables)), "puna COMMAND --help"));
        }
        let entry = self.entry((None, key, line), item)?;
        known.iter().try_for_each(|(command, arg)| self.check(command, arg, &entry))?;
        self.entries.push(entry);
        Ok(())
    }

    fn entry(&self, (table, key, line): (Option<&str>, &str, usize), item: &Item) -> Result<Entry> {
        let said = item.as_value().and_then(said).ok_or_else(|| {
            let hint = format!("write {key} = \"text\", a number, true or false, or a list of texts");
            usage(format!("{}: {key} is of a kind that no setting has", self.at(line)), hint)
        })?;
        Ok(Entry { table: table.map(str::to_owned), key: key.to_owned(), line, said })
    }

    /// Refuses what the flag would refuse, and what a project may not decide.
    fn check(&self, command: &Command, arg: &Arg, entry: &Entry) -> Result<()> {
        let (key, at) = (&entry.key, self.at(entry.line));
        if self.kind == Kind::Project && names(arg).any(|name| name == "PROGRAM" || name == "URL") {
            let why = "names a program or a server, which a project's file may not: the folder may be somebody else's";
            let hint = format!("give --{key}, or write it to your own file, ~/.config/puna/config.toml");
            return Err(usage(format!("{at}: {key} {why}"), hint));
        }
        let wrong = match entry.arguments(arg, self) {
            Err(why) => Some(why),
            Ok(arguments) => refusal(command, &arguments),
        };
        let Some(why) = wrong else { return Ok(()) };
        let shown = match &entry.said {
            _ if arg.is_hide_env_values_set() => String::new(),
            Said::Switch(is_on) => format!(" = {is_on}"),
            Said::One(text) => format!(" = \"{text}\""),
            Said::Many(texts) => format!(" = {texts:?}"),
        };
        let hint = format!("`puna {} --help` says what --{key} takes", command.get_name());
        Err(usage(format!("{at}: {key}{shown}: {why}"), hint))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    fn unknown(&self, line: usize, why: &str, nearest: Option<String>, list: &str) -> anyhow::Error {
        let hint = match nearest {
            Some(name) => format!("the nearest is \"{name}\"; `{list}` lists all"),
            None => format!("`{list}` lists all"),
        };
        usage(format!("{}: {why}", self.at(line)), hint)
    }

    /// A path as it stands in the file, from the file's folder; the name that is a flag's default is none.
    fn path(&self, arg: &Arg, text: &str) -> OsString {
        let is_path = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
        // Where a file is one of several things, words in small letters are others.
        let is_default = arg.get_default_values().iter().any(|value| value.as_os_str() == text);
        if is_default || names(arg).any(|name| name == text) || !(is_path || names(arg).any(|name| name == "FILE")) {
            return text.into();
        }
        let from_home = self.home.as_ref().zip(text.strip_prefix("~/")).map(|(home, rest)| home.join(rest));
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let path = from_home.unwrap_or_else(|| folder.join(text));
        if is_path || path.exists() { path.into() } else { text.into() }
    }
}

impl Entry {
    /// Whether it stands outside of tables.
    pub fn is_shared(&self) -> bool {
        self.table.is_none()
    }

    /// Whether it says what holds if nothing is said.
    pub fn is_default(&self, arg: &Arg) -> bool {
        let own = match &self.said {
            Said::Switch(is_on) => return is_switch(arg) && !is_on,
            Said::One(text) => text.clone(),
            Said::Many(texts) => texts.join(","),
        };
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        !default.is_empty() && default.join(",") == own
    }

    /// What says the same on a command line.
    ///
    /// # Errors
    /// Why the flag can not say this.
    pub fn arguments(&self, arg: &Arg, file: &File) -> Result<Vec<OsString>, String> {
        let long = arg.get_long().unwrap_or_default();
        let with = |text: &String| {
            let mut word = OsString::from(format!("--{long}="));
            word.push(file.path(arg, text));
            word
        };
        // A flag whose value may be left out.
        let is_short = arg.is_require_equals_set() && arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        match &self.said {
            Said::Switch(is_on) if is_switch(arg) => {
                Ok(is_on.then(|| format!("--{long}").into()).into_iter().collect())
            }
            Said::Switch(true) if is_short => Ok(vec![format!("--{long}").into()]),
            Said::Switch(_) => Err("it takes a text or a number, not true or false".into()),
            _ if is_switch(arg) => Err("it takes true or false".into()),
            Said::One(text) => Ok(vec![with(text)]),
            Said::Many(texts) if is_list(arg) => Ok(texts.iter().map(with).collect()),
            Said::Many(_) => Err("it takes one value, not a list".into()),
        }
    }
}

fn read(path: &Path) -> Result<String> {
    let failed = |why: String| usage(format!("{}: {why}", path.display()), "correct the file, or move it away");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(LIMIT_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(failed(format!("has more than {LIMIT_BYTES} bytes")));
    }
    Ok(text)
}

fn line_of(text: &str, table: &dyn TableLike, key: &str) -> usize {
    table.key(key).and_then(|key| key.span()).map_or(1, |span| line_at(text, span.start))
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn is_named(arg: &Arg, key: &str) -> bool {
    arg.get_long() == Some(key) || arg.get_visible_aliases().is_some_and(|names| names.contains(&key))
}

/// What a flag's value is called; several names where it is one of several things.
fn names(arg: &Arg) -> impl Iterator<Item = &str> {
    arg.get_value_names().into_iter().flatten().flat_map(|name| name.as_str().split('|'))
}

fn said(value: &Value) -> Option<Said> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        _ => None,
    };
    match value {
        Value::Boolean(is_on) => Some(Said::Switch(*is_on.value())),
        Value::Array(list) => list.iter().map(one).collect::<Option<_>>().map(Said::Many),
        value => one(value).map(Said::One),
    }
}

/// Why the command would refuse these arguments, if it is for their values.
fn refusal(command: &Command, arguments: &[OsString]) -> Option<String> {
    let bare = command.clone().no_binary_name(true).mut_args(|arg| arg.env(Resettable::Reset).required(false));
    let error = bare.try_get_matches_from(arguments).err()?;
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return None;
    }
    if let Some(source) = std::error::Error::source(&error) {
        return Some(source.to_string());
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(known)) if !known.is_empty() => Some(format!("it takes {}", known.join(", "))),
        _ => Some("it takes another value".into()),
    }
}

/// What was most likely meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let likeness = known.map(|known| (strsim::jaro(name, known), known)).filter(|(likeness, _)| *likeness > 0.6);
    likeness.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known.to_owned())
}
