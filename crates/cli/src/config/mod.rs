//! Settings from files, where neither a flag nor the environment says anything.
//!
//! Keys are the long names of flags, one table a command; what stands outside of tables goes to every command that has
//! such a flag. Nothing here knows a key by name. What a file says becomes an argument before arguments are parsed, so
//! every rule of the flags holds for it too, and what conflicts with a flag that was given gives way.

mod file;
mod places;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

pub use file::{File, Kind};
pub use places::Places;

/// Arguments with those from files among them.
pub struct Merged {
    /// What is to be parsed.
    pub arguments: Vec<OsString>,
    /// The files that some of them are from.
    pub files: Vec<PathBuf>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The variable of this name.
    Environment(String),
    /// A line of a file.
    File {
        /// Whose file.
        kind: Kind,
        /// Where it is.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// What holds if nothing is said.
    Default,
    /// Nowhere: there is none.
    Unset,
}

/// A flag with its value.
pub struct Setting {
    /// The flag's long name.
    pub key: String,
    /// The values as texts; several only where a flag may be given several times.
    pub values: Vec<String>,
    /// Where they come from.
    pub origin: Origin,
}

/// Adds to `given`, a whole command line, what files say.
///
/// # Errors
/// Exit code 2 for a file that can not be read or says what no command knows.
pub fn merge(top: &Command, given: Vec<OsString>) -> Result<Merged> {
    let unchanged = |given| Ok(Merged { arguments: given, files: Vec::new() });
    let Some(command) = given.get(1).and_then(|name| top.find_subcommand(name)).filter(|one| has_keys(one)) else {
        return unchanged(given);
    };
    let (own, undone) = switches(command, given.get(2..).unwrap_or_default());
    // What is wrong with the command line itself, or asks for help, is said by the parser proper.
    let Ok(matches) = parse(command, &own) else { return unchanged(given) };
    let files = Places::of_process()?.read(top)?;
    let applied = applied(&files, command, &matches, &undone);
    let mut arguments: Vec<OsString> = given.into_iter().take(2).collect();
    arguments.extend(applied.iter().flat_map(|one| one.arguments.iter().cloned()));
    arguments.extend(own);
    let used: BTreeSet<PathBuf> = applied.iter().map(|one| one.file.path.clone()).collect();
    Ok(Merged { arguments, files: used.into_iter().collect() })
}

/// Every setting of `command`, called with `given`.
///
/// # Errors
/// The parser's, for a command line that is wrong.
pub fn settings(files: &[File], command: &Command, given: &[OsString]) -> Result<Vec<Setting>, clap::Error> {
    let (own, undone) = switches(command, given);
    let matches = parse(command, &own)?;
    let applied = applied(files, command, &matches, &undone);
    let all: Vec<OsString> =
        applied.iter().flat_map(|one| one.arguments.iter().cloned()).chain(own.iter().cloned()).collect();
    // What files say against each other is shown, too.
    let free = command.clone().mut_args(|arg| arg.conflicts_with(Resettable::Reset));
    let matches = parse(&free, &all)?;
    let setting = |arg: &Arg| {
        let from = applied.iter().find(|one| one.arg.get_id() == arg.get_id());
        let origin = match (from, matches.value_source(arg.get_id().as_str())) {
            (Some(from), _) => Origin::File { kind: from.file.kind, path: from.file.path.clone(), line: from.line },
            (None, _) if undone.contains(arg.get_id().as_str()) => Origin::Flag,
            (None, Some(ValueSource::CommandLine)) => Origin::Flag,
            (None, Some(ValueSource::EnvVariable)) => {
                Origin::Environment(arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
            }
            (None, Some(_)) => Origin::Default,
            (None, None) => Origin::Unset,
        };
        let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
        let values = raw.map(|value| value.to_string_lossy().into_owned()).collect();
        Setting { key: arg.get_long().unwrap_or_default().to_owned(), values, origin }
    };
    Ok(keys(command).map(setting).collect())
}

/// The flags that files may set: those with a long name.
pub fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some())
}

/// The commands that have a table.
pub fn commands(top: &Command) -> impl Iterator<Item = &Command> {
    top.get_subcommands().filter(|command| has_keys(command))
}

fn has_keys(command: &Command) -> bool {
    keys(command).next().is_some()
}

/// Whether a flag is there or not, without a value.
pub fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Whether a flag may be given several times.
pub fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// What a file's line adds to a command line.
struct Applied<'a> {
    file: &'a File,
    line: usize,
    arg: &'a Arg,
    arguments: Vec<OsString>,
}

/// What files say of flags that are open: not given, not in the environment, not in conflict with one that is.
fn applied<'a>(
    files: &'a [File],
    command: &'a Command,
    matches: &ArgMatches,
    undone: &BTreeSet<String>,
) -> Vec<Applied<'a>> {
    let is_said = |arg: &Arg| {
        let source = matches.value_source(arg.get_id().as_str());
        undone.contains(arg.get_id().as_str())
            || matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let said: Vec<&Arg> = command.get_arguments().filter(|arg| is_said(arg)).collect();
    let conflicts =
        |one: &Arg, other: &Arg| command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id());
    let give_way = |arg: &Arg, others: &[&Arg]| others.iter().any(|one| conflicts(one, arg) || conflicts(arg, one));
    let is_open = |arg: &&Arg| !said.iter().any(|one| one.get_id() == arg.get_id()) && !give_way(arg, &said);
    let found = |arg: &'a Arg| {
        let (rank, (file, entry)) =
            files.iter().enumerate().find_map(|(rank, file)| Some((rank, (file, file.find(command, arg)?))))?;
        // What can not be said was refused when the file was read; what holds anyway need not be.
        let arguments = if entry.is_default(arg) { Vec::new() } else { entry.arguments(arg, file).unwrap_or_default() };
        Some(((rank, entry.is_shared()), Applied { file, line: entry.line, arg, arguments }))
    };
    let mut found: Vec<((usize, bool), Applied<'a>)> = keys(command).filter(is_open).filter_map(found).collect();
    // Among files too, what counts less gives way; a contradiction within one table is the parser's to name.
    let all: Vec<((usize, bool), &Arg)> =
        found.iter().filter(|(_, one)| !one.arguments.is_empty()).map(|(rank, one)| (*rank, one.arg)).collect();
    found.retain(|(rank, one)| {
        let stronger: Vec<&Arg> = all.iter().filter(|(other, _)| other < rank).map(|(_, arg)| *arg).collect();
        !give_way(one.arg, &stronger)
    });
    found.into_iter().map(|(_, one)| one).collect()
}

/// Takes `--FLAG=true` and `--FLAG=false` of flags without a value, which undo what a file says: the arguments that are
/// left, and the flags that were meant.
fn switches(command: &Command, given: &[OsString]) -> (Vec<OsString>, BTreeSet<String>) {
    let (mut own, mut undone) = (Vec::with_capacity(given.len()), BTreeSet::new());
    let mut words = given.iter();
    for word in words.by_ref() {
        if word == "--" {
            own.push(word.clone());
            break;
        }
        let parts = word.to_str().and_then(|word| word.strip_prefix("--")?.split_once('='));
        let meant = parts.and_then(|(name, value)| {
            let arg = keys(command).find(|arg| arg.get_long() == Some(name) && is_switch(arg))?;
            Some((arg, value.parse::<bool>().ok()?))
        });
        match meant {
            Some((arg, true)) => own.push(format!("--{}", arg.get_long().unwrap_or_default()).into()),
            Some((arg, false)) => drop(undone.insert(arg.get_id().to_string())),
            None => own.push(word.clone()),
        }
    }
    own.extend(words.cloned());
    (own, undone)
}

/// Parses `arguments` of `command` without asking for what is missing: a file may have it.
fn parse(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let relaxed = command
        .clone()
        .no_binary_name(true)
        .mut_args(|arg| arg.required(false).required_unless_present(Resettable::Reset).requires(Resettable::Reset));
    relaxed.try_get_matches_from(arguments)
}
