//! A conversation at the terminal.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cpu::Cpu;
use engine::Request;
use rustyline::error::ReadlineError;

use crate::answer::Answer;
use crate::attachments::{self, Attachment, Kind};
use crate::chat::Chat;
use crate::output::line;

const HELP: &str = "/image FILE  put a picture before the next message
/audio FILE  put a sound before the next message
/system TEXT start again with another system message
/clear       start again
/help        this
/bye         leave (also Ctrl-D)";

/// Reads messages and answers them until the end of input. Ctrl-C drops the line being written, or the rest of an answer.
pub fn hold(mut chat: Chat<Cpu>, request: &Request, system: Option<&str>, with_stats: bool) -> Result<()> {
    let mut editor = rustyline::DefaultEditor::new()?;
    let history = history_file();
    if let Some(path) = &history {
        // The first conversation has no history yet.
        let _ = editor.load_history(path);
    }
    eprintln!("{} · /help for commands, Ctrl-D to leave", chat.name());
    let mut system = system.map(str::to_owned);
    let mut attached = Vec::new();
    loop {
        let input = match editor.readline("> ") {
            Ok(input) => input,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        if input.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(&input)?;
        if let Some(path) = &history {
            // A history that can not be written is no reason to end a conversation.
            let _ = editor.save_history(path);
        }
        let (command, rest) = input.trim().split_once(' ').unwrap_or((input.trim(), ""));
        match command {
            "/bye" => break,
            "/help" => line(HELP)?,
            "/clear" => chat.clear(),
            "/system" => {
                system = Some(rest.to_owned());
                chat.clear();
            }
            "/image" | "/audio" => {
                let kind = if command == "/image" { Kind::Image } else { Kind::Audio };
                match attachments::open(kind, Path::new(rest.trim())) {
                    Ok(file) => attached.push(file),
                    Err(error) => {
                        crate::failure::report(&error);
                    }
                }
            }
            _ => {
                let taken = std::mem::take(&mut attached);
                if let Err(error) = turn(&mut chat, request, system.as_deref(), &input, &taken, with_stats) {
                    // A closed output ends the conversation; a refused message does not.
                    if error.downcast_ref::<std::io::Error>().is_some() {
                        return Err(error);
                    }
                    chat.forget_unanswered();
                    crate::failure::report(&error);
                }
            }
        }
    }
    Ok(())
}

fn turn(
    chat: &mut Chat<Cpu>,
    request: &Request,
    system: Option<&str>,
    input: &str,
    attached: &[Attachment],
    with_stats: bool,
) -> Result<()> {
    chat.user(system, input, attached)?;
    let content = chat.render()?;
    let answer = Answer::stream(chat, content, request, true)?;
    line("")?;
    if with_stats {
        eprintln!("{}", answer.stats());
    }
    chat.assistant(answer.text);
    Ok(())
}

/// Where lines of earlier conversations are kept: the user's state folder.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let folder = state.or_else(home)?.join("puna");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
