//! The reference backend with one operation that breaks a law in a known way, for the tests; never shipped.

use backend_reference::Reference;
use plugin_api::{
    Error, Result,
    backend::{Backend, Call, DType, Session, SessionOptions, ops::CATALOGUE},
    manifest::{BackendManifest, DeviceSpec},
    options,
    options::OptionSet,
};
use plugin_api_laws::faulty::{Fault as Wrong, Faulty};
use std::{process, thread, time::Duration};

options! {
    /// Options of the broken backend.
    pub struct BrokenOptions {
        /// What goes wrong.
        fault: String = "none".into(), of [
            "none", "scale", "panic", "abort", "exit", "hang", "deny", "affirm", "leak-handle", "leak-memory", "drift",
            "chatter", "open", "close", "abort-at-forty", "lose-at-forty"
        ];
        /// The operation it concerns.
        op: String = "attention_backward".into();
    }
}

/// The plugin.
pub struct BrokenBackend;

impl Backend for BrokenBackend {
    type Session = Broken;

    fn manifest() -> BackendManifest {
        let device = |name: &str, compiled| DeviceSpec {
            name: name.into(),
            compiled,
            tested: false,
            note: "".into(),
            instruction_set: "".into(),
            same_with_any_threads: false,
        };
        BackendManifest {
            summary: "The reference with one fault, for tests".into(),
            devices: vec![device("cpu", true), device("metal", false)],
            dtypes: vec!["f32".into(), "f64".into()],
            options: BrokenOptions::specs(),
            ..Default::default()
        }
    }

    fn open(options: &SessionOptions) -> Result<Broken> {
        let BrokenOptions { fault, op } = BrokenOptions::parse(&options.options)?;
        if options.device != "cpu" {
            return Err(Error::new(plugin_api::Code::DEVICE, format!("device `{}` is not available", options.device)));
        }
        if fault == "open" {
            process::abort();
        }
        let op = CATALOGUE.iter().find(|spec| spec.name == op).map_or(u32::MAX, |spec| spec.id);
        // The second of the two sessions that are compared drifts.
        let wrong = match fault.as_str() {
            "scale" => Some(1.01),
            "drift" if options.tag == 2 => Some(1.0 + 1e-6),
            _ => None,
        };
        let inner = Reference::new(options.tag);
        let inner: Box<dyn Session> = match wrong {
            Some(factor) => Box::new(Faulty::new(inner, op, Wrong::Scale(0, factor))),
            None => Box::new(inner),
        };
        Ok(Broken { inner, op, fault, lost: false })
    }
}

/// A session with a fault.
pub struct Broken {
    inner: Box<dyn Session>,
    op: u32,
    fault: String,
    /// Whether its device is lost.
    lost: bool,
}

impl Broken {
    fn alive(&self) -> Result<()> {
        if self.lost { Err(Error::new(plugin_api::Code::LOST, "the device is lost")) } else { Ok(()) }
    }

    fn show(&mut self) -> Result<()> {
        match self.fault.as_str() {
            "panic" => panic!("the operation that panics"),
            "abort" => {
                eprintln!("the operation that aborts");
                process::abort();
            }
            "exit" => process::exit(0),
            "hang" => loop {
                thread::sleep(Duration::from_secs(1));
            },
            "leak-handle" => self.inner.alloc(DType::F32, 1).map(drop),
            "leak-memory" => {
                // Written and read, so that neither system nor compiler removes it.
                std::hint::black_box(Box::leak(vec![1_u8; 64 << 10].into_boxed_slice()));
                Ok(())
            }
            "chatter" => {
                println!("{{\"Checked\": {{\"lines\": []}}}}");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if self.fault == "close" {
            process::abort();
        }
    }
}

impl Session for Broken {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        self.alive()?;
        if call.op == self.op {
            // Only the cases with forty sequences have forty-one offsets.
            if call.inputs.iter().any(|view| view.rows * view.cols == 41) {
                match self.fault.as_str() {
                    "abort-at-forty" => process::abort(),
                    "lose-at-forty" => self.lost = true,
                    _ => {}
                }
                self.alive()?;
            }
            self.show()?;
            let is_f32 = call.outputs.iter().any(|view| view.dtype == DType::F32);
            if self.fault == "affirm" && is_f32 {
                return Err(Error::unsupported("not in f32"));
            }
        }
        self.inner.invoke(call)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        let denied = self.fault == "deny" && op == self.op && dtype == DType::F64;
        !denied && !self.lost && self.inner.supports(op, dtype)
    }

    fn sync(&mut self) -> Result<()> {
        self.alive()?;
        self.inner.sync()
    }

    plugin_api::pass_on!(inner: alloc free upload download write_version workspace memory trim);
}

plugin_api::export_backend!("broken", BrokenBackend);

/// Runs when the library is opened: with TELOS_TEST_CRASH it ends the process, like a faulty static constructor.
extern "C" fn initialiser() {
    if std::env::var_os("TELOS_TEST_CRASH").is_some() {
        process::abort();
    }
}

#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static INITIALISER: extern "C" fn() = initialiser;
