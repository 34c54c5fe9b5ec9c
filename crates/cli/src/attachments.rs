//! Images and clips that a prompt shows.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use engine::Limits;
use engine::media::audio::{AudioFormat, RATE_HZ};

use crate::failure::usage;

/// The file name that means standard input.
const STANDARD_INPUT: &str = "-";

/// What kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A picture.
    Image,
    /// A clip of audio.
    Audio,
}

/// A file's bytes.
#[derive(Debug)]
pub struct Attachment {
    /// What it is.
    pub kind: Kind,
    /// Its name, for errors.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// What it is said to hold; `None` where its content tells.
    pub declared: Option<AudioFormat>,
}

/// `--image` and `--audio`, in the order in which they were given.
#[derive(Debug, Clone, Default)]
pub struct Attachments {
    list: Vec<(Kind, PathBuf)>,
}

#[derive(Args)]
struct Flags {
    /// A picture to put before the prompt; may be given several times
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// A sound to put before the prompt, WAV, FLAC, MP3, Ogg or M4A; - reads 16-bit samples at 16 kHz from standard input, as
    /// a microphone gives them; may be given several times
    #[arg(long, value_name = "FILE")]
    audio: Vec<PathBuf>,
}

impl FromArgMatches for Attachments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let mut list = Vec::new();
        for (name, kind, paths) in [("image", Kind::Image, flags.image), ("audio", Kind::Audio, flags.audio)] {
            list.extend(matches.indices_of(name).into_iter().flatten().zip(paths).map(|(at, path)| (at, kind, path)));
        }
        list.sort_by_key(|(at, ..)| *at);
        Ok(Self { list: list.into_iter().map(|(_, kind, path)| (kind, path)).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Attachments {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

impl Attachments {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one of them is what standard input holds.
    pub fn reads_standard_input(&self) -> bool {
        self.list.iter().any(|(kind, path)| *kind == Kind::Audio && path == Path::new(STANDARD_INPUT))
    }

    /// Reads all files, in their order.
    pub fn read(&self) -> Result<Vec<Attachment>> {
        let mut has_read = false;
        let read = |(kind, path): &(Kind, PathBuf)| match kind {
            Kind::Audio if path == Path::new(STANDARD_INPUT) => {
                if std::mem::replace(&mut has_read, true) {
                    return Err(usage(
                        "--audio -: standard input can be read only once",
                        "give the other clip as a file",
                    ));
                }
                microphone()
            }
            _ => open(*kind, path),
        };
        self.list.iter().map(read).collect()
    }
}

/// Reads a file.
pub fn open(kind: Kind, path: &Path) -> Result<Attachment> {
    let flag = if kind == Kind::Image { "image" } else { "audio" };
    let bytes =
        std::fs::read(path).map_err(|e| usage(format!("--{flag} {}: {e}", path.display()), "check the path"))?;
    Ok(Attachment { kind, path: path.to_owned(), bytes, declared: None })
}

/// What comes through standard input until it ends.
fn microphone() -> Result<Attachment> {
    // One byte more than is allowed, which decoding then refuses.
    let most = Limits::default().audio_bytes as u64 + 1;
    let mut bytes = Vec::new();
    std::io::stdin().take(most).read_to_end(&mut bytes).map_err(|e| {
        usage(format!("--audio -: {e}"), "pipe 16-bit samples in: arecord -f S16_LE -r 16000 -c 1 | puna run …")
    })?;
    let declared = Some(AudioFormat::Pcm16 { rate_hz: RATE_HZ });
    Ok(Attachment { kind: Kind::Audio, path: PathBuf::from("standard input"), bytes, declared })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_flags_is_kept() {
        let command = Attachments::augment_args(Command::new("run"));
        let words = ["run", "--audio", "a", "--image", "b", "--image=c", "--audio", "-"];
        let matches = command.get_matches_from(words);
        let attachments = Attachments::from_arg_matches(&matches).expect("flags");
        let order: Vec<_> = attachments.list.iter().map(|(kind, path)| (*kind, path.to_str().expect("text"))).collect();
        assert_eq!(order, [(Kind::Audio, "a"), (Kind::Image, "b"), (Kind::Image, "c"), (Kind::Audio, "-")]);
        assert!(attachments.reads_standard_input() && !attachments.is_empty());
    }
}
