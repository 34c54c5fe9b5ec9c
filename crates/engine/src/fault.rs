//! Named points at which tests let something go wrong. In release builds they are nothing.

use std::sync::Arc;

/// What a test does at a point: look, wait, or panic.
pub type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

#[cfg(debug_assertions)]
std::thread_local! {
    // Per thread, so that two services under test never see each other's faults.
    static HOOK: std::cell::RefCell<Option<Hook>> = const { std::cell::RefCell::new(None) };
}

/// From now on `hook` is called at every point that this thread passes.
pub(crate) fn install(hook: Option<Hook>) {
    #[cfg(debug_assertions)]
    HOOK.set(hook);
    #[cfg(not(debug_assertions))]
    drop(hook);
}

/// The point called `name`.
#[inline]
pub(crate) fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    if let Some(hook) = HOOK.with_borrow(Clone::clone) {
        hook(name);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
