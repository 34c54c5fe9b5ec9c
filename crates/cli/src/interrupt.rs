//! Ctrl-C: the first ends the answer being given, otherwise it ends the process.

use std::sync::atomic::{AtomicU8, Ordering};

/// Exit code of an interrupted process, as shells give it.
pub const INTERRUPTED: u8 = 130;

const IDLE: u8 = 0;
const WATCHED: u8 = 1;
const ASKED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// Takes Ctrl-C over from the operating system.
///
/// # Errors
/// If the operating system refuses.
pub fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if STATE.compare_exchange(WATCHED, ASKED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
}

/// While it lives, one Ctrl-C is only noted.
pub struct Watch(());

impl Watch {
    pub fn begin() -> Self {
        STATE.store(WATCHED, Ordering::SeqCst);
        Self(())
    }

    pub fn is_interrupted(&self) -> bool {
        STATE.load(Ordering::SeqCst) == ASKED
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::SeqCst);
    }
}
