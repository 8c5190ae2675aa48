//! Stop-gradients while differences are taken: a detached value keeps its value at the base point.
//!
//! A loss that detaches a value (KTO's reference point, an advantage, an importance weight) returns cotangents that are
//! *not* the derivatives of its value: they are the derivatives with the detached values held constant. To compare cotangents
//! with differences, call the loss at the base point inside [`record_detached`], then at each shifted point inside
//! [`replay_detached`]: there the n-th detached value is the n-th recorded one, whatever the statistics are.
//!
//! Values are matched by the order of the calls of [`Var::detach`](super::Var::detach), [`Var::detach_as`](super::Var::detach_as)
//! and [`stop_gradient`] on the thread that computes the loss, over all its tapes. If the shifted point takes another branch, so
//! that number, name or length differ, nothing can be compared: [`replay_detached`] returns an error.
//!
//! Outside these two functions nothing is recorded and nothing is replaced.

use std::cell::RefCell;

/// A value that a loss detached.
#[derive(Debug, Clone, PartialEq)]
pub struct Detached {
    /// The name the loss gave it; empty for a plain [`Var::detach`](super::Var::detach).
    pub name: String,
    /// Its numbers, row-major.
    pub values: Vec<f64>,
}

#[derive(Debug, Clone, Default)]
enum Mode {
    #[default]
    Off,
    Record(Vec<Detached>),
    Replay {
        values: Vec<Detached>,
        next: usize,
        mismatch: Option<String>,
    },
}

thread_local! {
    static MODE: RefCell<Mode> = const { RefCell::new(Mode::Off) };
}

/// Restores the earlier mode, also if the call inside panics.
struct Scope(Mode);

impl Scope {
    fn enter(mode: Mode) -> Self {
        Scope(MODE.with(|current| current.replace(mode)))
    }

    /// Leaves, and returns the mode with its current content.
    fn leave(mut self) -> Mode {
        let earlier = std::mem::take(&mut self.0);
        std::mem::forget(self);
        MODE.with(|current| current.replace(earlier))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let earlier = std::mem::take(&mut self.0);
        MODE.with(|current| _ = current.replace(earlier));
    }
}

/// Runs `call` and returns its result and every value that it detached, in order.
pub fn record_detached<R>(call: impl FnOnce() -> R) -> (R, Vec<Detached>) {
    let scope = Scope::enter(Mode::Record(Vec::new()));
    let result = call();
    match scope.leave() {
        Mode::Record(values) => (result, values),
        Mode::Off | Mode::Replay { .. } => (result, Vec::new()),
    }
}

/// Runs `call` with its detached values replaced by `values`, in order.
///
/// # Errors
/// `call` detached other values than those recorded: another number of them, another name or length.
pub fn replay_detached<R>(values: &[Detached], call: impl FnOnce() -> R) -> Result<R, String> {
    let scope = Scope::enter(Mode::Replay { values: values.to_vec(), next: 0, mismatch: None });
    let result = call();
    match scope.leave() {
        Mode::Replay { mismatch: Some(why), .. } => Err(why),
        Mode::Replay { values, next, .. } if next < values.len() => {
            Err(branches(&format!("it detached {} values at the base point and {next} here", values.len())))
        }
        _ => Ok(result),
    }
}

/// Marks `values` as constant in the gradient. A hand-derived loss calls it for every number that depends on a statistic and is
/// held constant in its cotangents. `name` is one of
/// [`ObjectiveManifest::stop_gradients`](crate::manifest::ObjectiveManifest::stop_gradients), or empty.
///
/// Returns `values` unchanged, except while a law takes differences: then it returns the values of the base point. Use the
/// returned values in the computation.
///
/// ```
/// use plugin_api::tape::stop_gradient;
///
/// let log_ratios = [0.5, -0.25];
/// let mean = log_ratios.iter().sum::<f64>() / 2.0;
/// let [reference_point] = stop_gradient("reference_point", [mean.max(0.0)]);
/// assert_eq!(reference_point, 0.125);
/// ```
#[must_use]
pub fn stop_gradient<T: AsMut<[f64]>>(name: &str, mut values: T) -> T {
    pass(name, values.as_mut());
    values
}

/// Records `values`, or replaces them by the recorded ones.
pub(super) fn pass(name: &str, values: &mut [f64]) {
    MODE.with(|mode| match &mut *mode.borrow_mut() {
        Mode::Off => {}
        Mode::Record(all) => all.push(Detached { name: name.to_owned(), values: values.to_vec() }),
        Mode::Replay { values: recorded, next, mismatch } => {
            let number = *next;
            *next += 1;
            match recorded.get(number) {
                Some(old) if old.name == name && old.values.len() == values.len() => {
                    values.copy_from_slice(&old.values)
                }
                _ if mismatch.is_some() => {}
                Some(old) => {
                    let of = |name: &str, count: usize| format!("`{name}` of {count} numbers");
                    let (was, is) = (of(&old.name, old.values.len()), of(name, values.len()));
                    let text = format!("its detached value {number} was {was} at the base point and is {is} here");
                    *mismatch = Some(branches(&text));
                }
                None => {
                    let text = format!("it detached {} values at the base point and more here", recorded.len());
                    *mismatch = Some(branches(&text));
                }
            }
        }
    });
}

fn branches(what: &str) -> String {
    format!(
        "the loss detaches other values where a statistic is moved: {what}; differences cannot be taken of a loss whose \
         detached values depend on a branch: detach in every branch, in the same order"
    )
}

/// What a caller on this thread requests for detached values. A loaded plugin has a tape of its own and gets this across the ABI.
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// Return them.
    Recorded,
    /// Use these values instead.
    These(Vec<Detached>),
}

/// The request of the enclosing [`record_detached`] or [`replay_detached`]; marks the values of a replay as used.
pub fn wanted_detached() -> Wanted {
    MODE.with(|mode| match &mut *mode.borrow_mut() {
        Mode::Off => Wanted::Nothing,
        Mode::Record(_) => Wanted::Recorded,
        Mode::Replay { values, next, .. } => {
            let rest = values.get(*next..).unwrap_or_default().to_vec();
            *next = values.len();
            Wanted::These(rest)
        }
    })
}

/// Adds what a loaded plugin returned to the enclosing [`record_detached`].
pub fn add_detached(values: Vec<Detached>) {
    MODE.with(|mode| {
        if let Mode::Record(all) = &mut *mode.borrow_mut() {
            all.extend(values);
        }
    });
}
