//! Objectives that fail in one known way each, for the tests; never shipped.
//!
//! All are cross-entropy, `-logp` summed over supervised tokens, until their fault occurs. They train until then, so that a test
//! can check what the host does when a working plugin fails.

mod odd;

use plugin_api::prelude::*;

options! {
    /// Options of the faulty objectives.
    pub struct FaultyOptions {
        /// The optimizer step (from 1) in whose loss the fault shows; 1 is at once.
        at_step: i64 = 1, from 1;
    }
}

/// The faults.
mod fault {
    /// Panics in `create`.
    pub const CREATE: u8 = 1;
    /// Panics in `prepare`.
    pub const PREPARE: u8 = 2;
    /// Panics in `loss`.
    pub const LOSS: u8 = 3;
    /// Reads an address that is not mapped.
    pub const SEGFAULT: u8 = 4;
    /// The loss and its cotangents are NaN.
    pub const NAN: u8 = 5;
    /// Returns a term that the manifest does not declare.
    pub const UNDECLARED_TERM: u8 = 6;
    /// Panics in `loss` at step 5, whatever the option says.
    pub const STEP_5: u8 = 7;
    /// Returns an error in `loss`, as a plugin should.
    pub const ERROR: u8 = 8;
    /// Cotangents are one short.
    pub const SHORT_COTANGENT: u8 = 9;
    /// Panics with a payload that is not a text, and whose destructor panics too.
    pub const BOMB: u8 = 10;
    /// Panics on a thread of its own and resumes that panic.
    pub const OTHER_THREAD: u8 = 11;
    /// Panics in `after_step`.
    pub const AFTER_STEP: u8 = 12;
    /// Panics when it is destroyed.
    pub const DESTROY: u8 = 13;
    /// Ends the process in `manifest`, with code 0.
    pub const EXIT_MANIFEST: u8 = 14;
    /// Declares metrics with the names of the host's own.
    pub const OWN_NAMES: u8 = 15;
    /// Declares a correct expectation that no run meets, because it allows no distance.
    pub const EXPECTATION: u8 = 16;
    /// Reads its statistics at a temperature so near 0 that they are not finite.
    pub const COLD: u8 = 17;
}

/// Cross-entropy with one fault.
pub struct Faulty<const FAULT: u8> {
    at_step: u64,
    steps_done: u64,
}

impl<const FAULT: u8> ObjectivePlugin for Faulty<FAULT> {
    type Options = FaultyOptions;

    fn manifest() -> ObjectiveManifest {
        let mut manifest = ObjectiveManifest {
            summary: "Cross-entropy with a fault, for tests".into(),
            formula: "sum over supervised tokens of -logp, until the fault shows".into(),
            terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "Negative log-likelihood, in nats")],
            ..Default::default()
        };
        match FAULT {
            fault::EXIT_MANIFEST => std::process::exit(0),
            fault::OWN_NAMES => {
                let metric = |name| MetricSpec::new(name, Reduction::MEAN, "a number");
                manifest.metrics = vec![metric("grad_norm"), metric("reward/length")];
                manifest.terms[0].meaning = "A number".into();
            }
            fault::EXPECTATION => {
                manifest.terms[0].meaning = "A number without a unit".into();
                manifest.expectations = vec![Expectation {
                    quantity: "nll".into(),
                    value: "ln_vocab".into(),
                    tolerance: 1e-9,
                    when: "the logits are uniform".into(),
                }];
            }
            _ => {}
        }
        manifest
    }

    fn create(options: FaultyOptions) -> Result<Self> {
        assert!(FAULT != fault::CREATE, "the create that panics");
        let at_step = if FAULT == fault::STEP_5 { 5 } else { options.at_step };
        Ok(Faulty { at_step: u64::try_from(at_step).unwrap_or(1), steps_done: 0 })
    }
}

impl<const FAULT: u8> Faulty<FAULT> {
    /// Triggers the fault, if it belongs to `loss` and its step has come.
    fn show(&self) -> Result<()> {
        if self.steps_done + 1 < self.at_step {
            return Ok(());
        }
        match FAULT {
            fault::LOSS | fault::STEP_5 => panic!("the loss that panics, in step {}", self.steps_done + 1),
            fault::SEGFAULT => segfault(),
            fault::ERROR => return Err(Error::invalid("the loss that refuses")),
            fault::BOMB => std::panic::panic_any(Bomb),
            fault::OTHER_THREAD => {
                if let Err(payload) = std::thread::spawn(panics).join() {
                    std::panic::resume_unwind(payload);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn spoil(&self, loss: &mut Loss) {
        if self.steps_done + 1 < self.at_step {
            return;
        }
        for term in &mut loss.terms {
            match FAULT {
                fault::NAN => {
                    term.sum = f64::NAN;
                    term.cotangents.iter_mut().for_each(|(_, values)| values.fill(f64::NAN));
                }
                fault::UNDECLARED_TERM => term.name = "surprise".into(),
                fault::SHORT_COTANGENT => term.cotangents.iter_mut().for_each(|(_, values)| _ = values.pop()),
                _ => {}
            }
        }
    }
}

impl<const FAULT: u8> Objective for Faulty<FAULT> {
    fn requirements(&self) -> Result<Requirements> {
        let temperature = if FAULT == fault::COLD { 1e-300 } else { 1.0 };
        Ok(Requirements { temperature, ..Default::default() })
    }

    fn prepare(&mut self, _: &Batch<'_>) -> Result<Batch<'static>> {
        assert!(FAULT != fault::PREPARE, "the prepare that panics");
        Ok(Batch::new())
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        self.show()?;
        let tape = batch.tape()?;
        let nll = (-batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
        let mut loss = Loss::new().term(&tape, "nll", 1.0, nll)?;
        self.spoil(&mut loss);
        Ok(loss)
    }

    fn after_step(&mut self, _: &[(String, f64)]) -> Result<Verdict> {
        assert!(FAULT != fault::AFTER_STEP, "the after_step that panics");
        self.steps_done += 1;
        Ok(Verdict::CONTINUE)
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(self.steps_done.to_le_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let bytes = state.try_into().map_err(|_| Error::new(Code::STATE, "8 bytes were expected"))?;
        self.steps_done = u64::from_le_bytes(bytes);
        Ok(())
    }
}

impl<const FAULT: u8> Drop for Faulty<FAULT> {
    fn drop(&mut self) {
        assert!(FAULT != fault::DESTROY, "the destructor that panics");
    }
}

fn panics() {
    panic!("the thread that panics");
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload that panics");
    }
}

fn segfault() {
    // SAFETY: none, this is the fault. No page is mapped at address 8, so that the system ends the process.
    unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
}

export_objective!("panics-in-create", Faulty<{ fault::CREATE }>);
export_objective!("panics-in-prepare", Faulty<{ fault::PREPARE }>);
export_objective!("panics-in-loss", Faulty<{ fault::LOSS }>);
export_objective!("segfaults-in-loss", Faulty<{ fault::SEGFAULT }>);
export_objective!("nan-loss", Faulty<{ fault::NAN }>);
export_objective!("undeclared-term", Faulty<{ fault::UNDECLARED_TERM }>);
export_objective!("panics-at-step-5", Faulty<{ fault::STEP_5 }>);
export_objective!("refuses-in-loss", Faulty<{ fault::ERROR }>);
export_objective!("short-cotangent", Faulty<{ fault::SHORT_COTANGENT }>);
export_objective!("bomb-in-loss", Faulty<{ fault::BOMB }>);
export_objective!("panics-on-other-thread", Faulty<{ fault::OTHER_THREAD }>);
export_objective!("panics-in-after-step", Faulty<{ fault::AFTER_STEP }>);
export_objective!("panics-in-destroy", Faulty<{ fault::DESTROY }>);
export_objective!("exits-in-manifest", Faulty<{ fault::EXIT_MANIFEST }>);
export_objective!("owned-names", Faulty<{ fault::OWN_NAMES }>);
export_objective!("too-cold", Faulty<{ fault::COLD }>);
export_objective!("missed-expectation", Faulty<{ fault::EXPECTATION }>);

/// Runs when the library is opened, before anything in it is called. It creates the file named by TELOS_TEST_MARKER, so that a
/// test can distinguish a library that was read from one that was opened. With TELOS_TEST_CRASH it reads an unmapped address.
extern "C" fn initialiser() {
    if let Some(marker) = std::env::var_os("TELOS_TEST_MARKER") {
        _ = std::fs::write(marker, "opened");
    }
    if std::env::var_os("TELOS_TEST_CRASH").is_some() {
        segfault();
    }
}

#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static INITIALISER: extern "C" fn() = initialiser;
