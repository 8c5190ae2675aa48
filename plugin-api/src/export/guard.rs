//! Stops panics at the ABI: nothing unwinds out of a plugin, and the message and location are kept.

use crate::{Code, Error, Result};
use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, Once, PoisonError},
};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static CAUGHT: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// The latest panic of a thread that is not inside a call itself (a worker of the plugin's pool).
static ELSEWHERE: Mutex<Option<(String, String)>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Installs a hook that stores a panic's message and location instead of printing them while the thread is inside a call.
fn install_hook() {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let seen = (text_of(info.payload()), place);
            if DEPTH.with(Cell::get) > 0 {
                CAUGHT.with(|caught| *caught.borrow_mut() = Some(seen));
            } else {
                *ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
                previous(info);
            }
        }));
    });
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a text".to_owned(),
    }
}

/// Runs `call`; a panic inside becomes a [`Code::PANIC`] error with the panic's message and location.
pub fn catch<R>(plugin: &str, what: &str, call: impl FnOnce() -> Result<R>) -> Result<R> {
    install_hook();
    DEPTH.with(|d| d.set(d.get() + 1));
    let outcome = panic::catch_unwind(AssertUnwindSafe(call));
    DEPTH.with(|d| d.set(d.get() - 1));
    let payload = match outcome {
        Ok(result) => return result.map_err(|e| e.in_plugin(plugin)),
        Err(payload) => payload,
    };
    let text = text_of(payload.as_ref());
    // The destructor of a payload is foreign code: a panic there must not escape either.
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    // Only the location of this panic: one that the plugin caught itself may have left an older note.
    let seen = CAUGHT.with(|caught| caught.borrow_mut().take()).filter(|(seen, _)| *seen == text);
    let seen = seen.or_else(|| {
        let elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner).take();
        elsewhere.filter(|(seen, _)| *seen == text)
    });
    let location = seen.map(|(_, place)| place).unwrap_or_default();
    Err(Error {
        code: Code::PANIC,
        message: format!("panicked in {what}: {text}"),
        plugin: plugin.to_owned(),
        location,
    })
}

/// An instance that remembers a panic: after one, it refuses all further calls.
pub struct Guarded<T> {
    value: T,
    plugin: &'static str,
    poisoned: bool,
}

impl<T> Guarded<T> {
    /// Wraps an instance of `plugin`.
    pub fn new(plugin: &'static str, value: T) -> Self {
        Guarded { value, plugin, poisoned: false }
    }

    /// Runs `call` on the instance, unless an earlier call panicked.
    ///
    /// # Errors
    /// Those of `call`; [`Code::PANIC`]; [`Code::POISONED`].
    pub fn call<R>(&mut self, what: &str, call: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        if self.poisoned {
            let message = format!("{what}: the instance panicked earlier and cannot be called again");
            return Err(Error::new(Code::POISONED, message).in_plugin(self.plugin));
        }
        let result = catch(self.plugin, what, || call(&mut self.value));
        self.poisoned = matches!(&result, Err(e) if e.code == Code::PANIC);
        result
    }

    /// The plugin's id.
    pub fn plugin(&self) -> &'static str {
        self.plugin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct BombOnDrop;
    impl Drop for BombOnDrop {
        fn drop(&mut self) {
            panic!("in the payload's destructor");
        }
    }

    #[test]
    fn a_panic_keeps_message_and_place_and_poisons_the_instance() {
        let mut guarded = Guarded::new("demo", 7);
        let error = guarded.call("loss", |_| -> Result<()> { panic!("boom {}", 3) }).unwrap_err();
        assert_eq!(error.code, Code::PANIC);
        assert!(error.message.contains("loss") && error.message.contains("boom 3"), "{error}");
        assert!(error.location.contains("guard.rs:"), "{error}");
        assert_eq!(error.plugin, "demo");
        let after = guarded.call("loss", |v| Ok(*v)).unwrap_err();
        assert_eq!(after.code, Code::POISONED);
    }

    #[test]
    fn an_error_does_not_poison_the_instance() {
        let mut guarded = Guarded::new("demo", 7);
        assert!(guarded.call("loss", |_| Err::<(), _>(Error::invalid("no"))).is_err());
        assert_eq!(guarded.call("loss", |v| Ok(*v)).unwrap(), 7);
    }

    #[test]
    fn a_panic_payload_that_panics_when_dropped_is_caught() {
        let error = catch("demo", "create", || -> Result<()> { panic::panic_any(BombOnDrop) }).unwrap_err();
        assert_eq!(error.code, Code::PANIC);
    }
}
