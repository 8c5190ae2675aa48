//! Arguments of a call, and their binding to parameter names.

use std::sync::Arc;

use crate::data::jinja::error::Evaluated;
use crate::data::jinja::value::Value;

/// Arguments of a call.
#[derive(Default)]
pub struct Args {
    pub positional: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// The arguments in the order of `names`, as Python binds them.
    ///
    /// # Errors
    /// Too many, an unknown name, or one given twice.
    pub fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Evaluated<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(format!("{what} takes at most {N} arguments, {} are given", self.positional.len()));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|one| *one == &*name).map(|place| &mut bound[place]) {
                Some(place @ None) => *place = Some(value),
                Some(_) => return Err(format!("{what} got two values for '{name}'")),
                None => return Err(format!("{what} got an unexpected keyword argument '{name}'")),
            }
        }
        Ok(bound)
    }

    /// The positional arguments; keywords are an error.
    pub fn positional(self, what: &str, least: usize, most: usize) -> Evaluated<Vec<Value>> {
        if let Some((name, _)) = self.named.first() {
            return Err(format!("{what} takes no keyword argument '{name}'"));
        }
        let given = self.positional.len();
        if given < least || given > most {
            return Err(format!("{what} takes {least} to {most} arguments, {given} are given"));
        }
        Ok(self.positional)
    }
}
