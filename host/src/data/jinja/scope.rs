//! Variables, and the scopes in which they are looked up.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::error::Evaluated;
use super::meter::Meter;
use super::value::{Scope, Value};

impl Scope {
    pub fn new(parent: Option<Rc<Scope>>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), parent })
    }

    pub fn inside(parent: &Rc<Scope>) -> Rc<Scope> {
        Scope::new(Some(parent.clone()))
    }

    /// A variable's value, from the innermost scope that has it.
    ///
    /// # Errors
    /// Those of the meter.
    pub fn find(&self, name: &str, meter: &Meter) -> Evaluated<Option<Value>> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            let variables = here.variables.borrow();
            meter.spend(variables.len() / 16)?;
            if let Some((_, value)) = variables.iter().find(|(one, _)| &**one == name) {
                return Ok(Some(value.clone()));
            }
            scope = here.parent.as_deref();
        }
        Ok(None)
    }

    /// The first result of `found` on a variable, from the innermost scope outwards.
    pub fn first<T>(&self, found: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(result) = here.variables.borrow().iter().find_map(|(_, value)| found(value)) {
                return Some(result);
            }
            scope = here.parent.as_deref();
        }
        None
    }

    /// Sets a variable of this scope.
    ///
    /// # Errors
    /// Those of the meter.
    pub fn set(&self, name: &Arc<str>, value: Value, meter: &Meter) -> Evaluated<()> {
        let mut variables = self.variables.borrow_mut();
        meter.spend(variables.len() / 16)?;
        match variables.iter_mut().find(|(one, _)| one == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name.clone(), value)),
        }
        Ok(())
    }
}
