//! `puna completions`.

use anyhow::Result;
use clap_complete::Shell;

/// Print completions for a shell
#[derive(clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self, top: &mut clap::Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, top, "puna", &mut script);
        crate::output::write(&String::from_utf8(script)?)?;
        Ok(())
    }
}
