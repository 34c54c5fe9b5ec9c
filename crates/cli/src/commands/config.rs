//! `puna config`.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Arg;
use serde_json::{Map, Value, json};

use crate::config::{self, Kind, Origin, Places, Setting};
use crate::failure::usage;
use crate::output::{line, write};

/// Show what commands use: from flags, the environment and files
#[derive(clap::Args)]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Show(Show),
}

/// Print every setting with its value
///
/// The result is a file of settings. What is to be in effect for one folder goes to puna.toml in it, what is for all to
/// your own file, which the first lines name. A flag counts more than a variable of the environment, this more than
/// the project's file, this more than your own, and all more than the default.
#[derive(clap::Args)]
struct Show {
    /// Say where each value comes from
    #[arg(long)]
    origin: bool,
    /// One JSON object, with origins
    #[arg(long)]
    json: bool,
    /// Only this command
    command: Option<String>,
    /// What the command would be called with
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Config {
    pub fn run(self, top: &clap::Command) -> Result<ExitCode> {
        let Verb::Show(show) = self.verb;
        show.run(top)
    }
}

impl Show {
    fn run(self, top: &clap::Command) -> Result<ExitCode> {
        let wanted = |command: &&clap::Command| self.command.as_deref().is_none_or(|name| command.get_name() == name);
        let commands: Vec<&clap::Command> = config::commands(top).filter(wanted).collect();
        if commands.is_empty() {
            let known: Vec<&str> = config::commands(top).map(clap::Command::get_name).collect();
            let message = format!("\"{}\" is no command with settings", self.command.unwrap_or_default());
            return Err(usage(message, format!("name one of {}", known.join(", "))));
        }
        let places = Places::of_process()?;
        let files = places.read(top)?;
        let mut all = Vec::new();
        for command in commands {
            match config::settings(&files, command, &self.arguments) {
                Ok(settings) => all.push((command, settings)),
                Err(error) => {
                    error.print()?;
                    return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1)));
                }
            }
        }
        let paths = [(Kind::Project, places.project_file()), (Kind::User, places.user_file.clone())];
        if self.json {
            line(&document(&paths, &all).to_string())?;
        } else {
            write(&self.text(&paths, &all))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self, paths: &[(Kind, Option<PathBuf>)], all: &[(&clap::Command, Vec<Setting>)]) -> String {
        let mut text = String::new();
        for (kind, path) in paths {
            let shown = match path {
                Some(path) if path.is_file() => path.display().to_string(),
                Some(path) => format!("{}, which is not there", path.display()),
                None => "none".into(),
            };
            text.push_str(&format!("# {}: {shown}\n", name(*kind)));
        }
        for (command, settings) in all {
            text.push_str(&format!("\n[{}]\n", command.get_name()));
            for setting in settings {
                let Some(arg) = arg(command, setting) else { continue };
                let shown = if setting.origin == Origin::Unset {
                    format!("# {} is not set", setting.key)
                } else if arg.is_hide_env_values_set() {
                    format!("# {} is set and not shown", setting.key)
                } else {
                    format!("{} = {}", setting.key, value(arg, setting))
                };
                let origin = match (&setting.origin, self.origin) {
                    (Origin::Unset, _) | (_, false) => String::new(),
                    (Origin::Flag, _) => "  # flag".into(),
                    (Origin::Environment(name), _) => format!("  # {name}"),
                    (Origin::File { path, line, .. }, _) => format!("  # {}:{line}", path.display()),
                    (Origin::Default, _) => "  # default".into(),
                };
                text.push_str(&format!("{shown}{origin}\n"));
            }
        }
        text
    }
}

/// The flag of a setting, if it is to be shown.
fn arg<'a>(command: &'a clap::Command, setting: &Setting) -> Option<&'a Arg> {
    let arg = config::keys(command).find(|arg| arg.get_long() == Some(&setting.key))?;
    (!arg.is_hide_set() || setting.origin != Origin::Unset).then_some(arg)
}

/// A setting's value, as TOML and JSON both write it.
fn value(arg: &Arg, setting: &Setting) -> Value {
    let one = |text: &String| {
        let is_text =
            [TypeId::of::<String>(), TypeId::of::<PathBuf>()].iter().any(|id| arg.get_value_parser().type_id() == *id);
        let number = (!is_text).then(|| serde_json::from_str::<serde_json::Number>(text).ok()).flatten();
        number.map_or_else(|| json!(text), Value::Number)
    };
    match setting.values.as_slice() {
        values if config::is_list(arg) => values.iter().map(one).collect(),
        [text] if config::is_switch(arg) => json!(text == "true"),
        [text] => one(text),
        _ => Value::Null,
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Project => "project file",
        Kind::User => "user file",
    }
}

/// All of it as one object.
fn document(paths: &[(Kind, Option<PathBuf>)], all: &[(&clap::Command, Vec<Setting>)]) -> Value {
    let files = paths.iter().map(|(kind, path)| {
        let is_there = path.as_ref().is_some_and(|path| path.is_file());
        json!({"kind": name(*kind), "path": path, "exists": is_there})
    });
    let settings = |command: &clap::Command, settings: &[Setting]| -> Map<String, Value> {
        let one = |setting: &Setting| {
            let arg = arg(command, setting)?;
            let is_secret = arg.is_hide_env_values_set();
            let shown = if is_secret { Value::Null } else { value(arg, setting) };
            let mut entry = json!({"value": shown});
            if is_secret {
                entry["hidden"] = json!(true);
            }
            match &setting.origin {
                Origin::Flag => entry["origin"] = json!("flag"),
                Origin::Environment(name) => (entry["origin"], entry["variable"]) = (json!("env"), json!(name)),
                Origin::File { kind, path, line } => {
                    entry["origin"] = json!(name(*kind));
                    (entry["path"], entry["line"]) = (json!(path), json!(line));
                }
                Origin::Default => entry["origin"] = json!("default"),
                Origin::Unset => entry["origin"] = Value::Null,
            }
            Some((setting.key.clone(), entry))
        };
        settings.iter().filter_map(one).collect()
    };
    let commands: BTreeMap<&str, _> =
        all.iter().map(|(command, list)| (command.get_name(), settings(command, list))).collect();
    json!({"version": 1, "files": files.collect::<Vec<_>>(), "commands": commands})
}
