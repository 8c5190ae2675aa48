//! Wrong calls: each is refused with its code, and the right call works afterwards.

use crate::backend::{
    case::Case,
    cases::Prepared,
    compare::compare,
    stage::{Draft, Layout, Stage},
    tables::wrong,
    tensor::encode,
};
use crate::{Agreement, Broken, Report};
use plugin_api::{
    Code, Result,
    abi::{Attr, DType, Handle, View},
    backend::{
        Session,
        catalogue::{AttrValue, Class, OperandSpec},
        ops::MaskKind,
    },
};

/// One line per kind of mistake.
pub fn verify(candidate: &mut dyn Session, dtype: DType, prepared: &Prepared, report: &mut Report) {
    let case = &prepared.case;
    let stage = match Stage::place(candidate, case, dtype, Layout::Dense) {
        Ok(stage) => stage,
        Err(e) => return report.push(case.spec.name, "wrong calls", Err(e.to_string())),
    };
    let mut probe = Probe { session: candidate, stage, case, dtype, problems: Vec::new(), tried: 0 };
    for (name, check) in kinds() {
        let ran = check(&mut probe);
        let outcome = probe.outcome(ran);
        report.push(case.spec.name, name, outcome);
    }
    let works = probe.works(prepared);
    report.measure(case.spec.name, "works after wrong calls", works);
    if let Err(e) = probe.stage.release(probe.session) {
        report.push(case.spec.name, "frees its buffers after wrong calls", Err(e.to_string()));
    }
}

/// Tries every mistake of one kind.
type Check<'a> = fn(&mut Probe<'a>) -> Result<()>;

/// The kinds of mistakes.
fn kinds<'a>() -> [(&'static str, Check<'a>); 10] {
    [
        ("refuses another version, id or operand count", Probe::headers),
        ("refuses unknown and mistyped attributes", Probe::attributes),
        ("refuses a missing operand", Probe::missing),
        ("refuses a wrong dtype", Probe::dtypes),
        ("refuses a wrong shape", Probe::shapes),
        ("refuses a view that leaves its buffer", Probe::extents),
        ("refuses a stale or foreign handle", Probe::handles),
        ("refuses a forbidden overlap", Probe::overlaps),
        ("refuses an index outside its table", Probe::indices),
        ("refuses senseless attributes", Probe::values),
    ]
}

/// A placed call that is changed in one way after another.
struct Probe<'a> {
    session: &'a mut dyn Session,
    stage: Stage<'a>,
    case: &'a Case,
    dtype: DType,
    problems: Vec<String>,
    tried: usize,
}

impl Probe<'_> {
    /// The result of the checks since the last call.
    fn outcome(&mut self, ran: Result<()>) -> Result<String, String> {
        let problems = std::mem::take(&mut self.problems);
        let tried = std::mem::take(&mut self.tried);
        ran.map_err(|e| format!("could not be tried: {e}"))?;
        if problems.is_empty() { Ok(format!("{tried} calls")) } else { Err(problems.join("; ")) }
    }

    /// The changed call must fail with one of `codes`.
    fn refuse(&mut self, what: impl Into<String>, codes: &[Code], draft: &Draft) {
        self.tried += 1;
        let what = what.into();
        match draft.invoke(self.session) {
            Ok(()) => self.problems.push(format!("{what}: accepted, expected {codes:?}")),
            Err(e) if codes.contains(&e.code) => {}
            Err(e) => self.problems.push(format!("{what}: {:?} ({e}), expected {codes:?}", e.code)),
        }
    }

    /// The changed call must succeed.
    fn accept(&mut self, what: &str, draft: &Draft) -> Result<()> {
        self.tried += 1;
        if let Err(e) = draft.invoke(self.session) {
            self.problems.push(format!("{what}: refused with {:?} ({e}), expected to be accepted", e.code));
        }
        self.stage.restore(self.session)
    }

    /// Changes operand `name`'s view.
    fn refuse_view(&mut self, what: &str, spec: &OperandSpec, code: Code, bend: impl FnOnce(&mut View)) {
        let mut draft = self.stage.draft();
        if let Some(view) = self.slot(&mut draft, spec.name) {
            bend(view);
            self.refuse(format!("`{}` {what}", spec.name), &[code], &draft);
        }
    }

    fn slot<'d>(&self, draft: &'d mut Draft, name: &str) -> Option<&'d mut View> {
        let spec = self.case.spec;
        let input = spec.inputs.iter().position(|s| s.name == name);
        let output = spec.outputs.iter().position(|s| s.name == name);
        match (input, output) {
            (Some(at), _) => draft.inputs.get_mut(at),
            (_, Some(at)) => draft.outputs.get_mut(at),
            _ => None,
        }
    }

    /// Operands that are present.
    fn present(&self) -> Vec<&'static OperandSpec> {
        self.case.specs().filter(|spec| self.case.operand(spec.name).is_some()).collect()
    }

    fn headers(&mut self) -> Result<()> {
        let draft = self.stage.draft();
        for version in [0, draft.version + 1] {
            self.refuse(format!("version {version}"), &[Code::UNSUPPORTED], &Draft { version, ..draft.clone() });
        }
        self.refuse("id 4000000000", &[Code::UNSUPPORTED], &Draft { op: 4_000_000_000, ..draft.clone() });
        let with_input = |view: View| {
            let mut longer = draft.clone();
            longer.inputs.push(view);
            longer
        };
        if let Some(view) = draft.inputs.iter().find(|view| !view.is_none()) {
            self.refuse("an unknown input", &[Code::UNSUPPORTED], &with_input(*view));
        }
        // A host of a later minor version knows more operands.
        self.accept("an unknown input that is absent", &with_input(View::NONE))?;
        let mut longer = draft.clone();
        longer.outputs.push(View::NONE);
        self.accept("an unknown output that is absent", &longer)?;
        let mut shorter = draft.clone();
        for views in [&mut shorter.inputs, &mut shorter.outputs] {
            while views.last().is_some_and(View::is_none) {
                views.pop();
            }
        }
        if (shorter.inputs.len(), shorter.outputs.len()) != (draft.inputs.len(), draft.outputs.len()) {
            self.accept("absent operands that are not sent", &shorter)?;
        }
        if self.case.spec.outputs.last().is_some_and(|spec| !spec.optional) {
            let mut shorter = draft;
            shorter.outputs.pop();
            self.refuse("a required output that is not sent", &[Code::INVALID_ARGUMENT], &shorter);
        }
        Ok(())
    }

    fn attributes(&mut self) -> Result<()> {
        let mut draft = self.stage.draft();
        draft.attrs.push(("no_such_attribute", Attr::INT, 1));
        self.refuse("`no_such_attribute`", &[Code::UNSUPPORTED], &draft);
        for (at, spec) in self.case.spec.attrs.iter().enumerate() {
            let mut draft = self.stage.draft();
            draft.attrs[at].1 = if spec.kind == Attr::FLOAT { Attr::INT } else { Attr::FLOAT };
            self.refuse(format!("`{}` of another kind", spec.name), &[Code::INVALID_ARGUMENT], &draft);
            let mut draft = self.stage.draft();
            if draft.attrs[at].2 == (spec.default)() {
                draft.attrs.remove(at);
                self.accept(&format!("`{}` that is left out at its default", spec.name), &draft)?;
            }
        }
        Ok(())
    }

    fn missing(&mut self) -> Result<()> {
        for spec in self.present() {
            let needed = !spec.optional || wrong().any(|w| w.companions.contains(&(self.case.spec.name, spec.name)));
            if needed {
                self.refuse_view("absent", spec, Code::INVALID_ARGUMENT, |view| *view = View::NONE);
            }
        }
        if let Some(at) = self.case.attrs.iter().position(|(name, _, _)| *name == "mask") {
            let mut draft = self.stage.draft();
            draft.attrs[at].2 = MaskKind::PREFIX.to_bits();
            if let Some(prefix) = self.slot(&mut draft, "prefix") {
                *prefix = View::NONE;
            }
            self.refuse("mask PREFIX without `prefix`", &[Code::INVALID_ARGUMENT], &draft);
        }
        Ok(())
    }

    fn dtypes(&mut self) -> Result<()> {
        let of_compute = |spec: &&&OperandSpec| spec.class == Class::T;
        let related = self.present().iter().filter(of_compute).count() > 1;
        for spec in self.present() {
            let right = self.case.dtype_of(spec, self.dtype);
            let mut wrong = vec![if right == DType::I32 { DType::F32 } else { DType::I32 }];
            if spec.class == Class::T && related {
                wrong.push(if right == DType::F32 { DType::BF16 } else { DType::F32 });
            }
            for dtype in wrong {
                let elements = self.stage.view(spec.name).end().unwrap_or(0);
                let buffer = self.session.alloc(dtype, elements)?;
                self.refuse_view(&format!("in {dtype}"), spec, Code::DTYPE, |view| {
                    *view = View { buffer, dtype, ..*view };
                });
                self.session.free(buffer)?;
            }
            let other = if right == DType::F32 { DType::I32 } else { DType::F32 };
            self.refuse_view(&format!("called {other}"), spec, Code::DTYPE, |view| view.dtype = other);
        }
        Ok(())
    }

    fn shapes(&mut self) -> Result<()> {
        let present = self.present();
        let symbol = |dim: &'static str| dim.trim_matches(['(', ')']).split('+').next().unwrap_or("").trim();
        let uses = |wanted: &str| present.iter().flat_map(|spec| spec.dims).filter(|dim| symbol(dim) == wanted).count();
        for spec in &present {
            for (axis, name) in ["rows", "columns"].iter().enumerate() {
                let dim = spec.dims[axis];
                let is_number = dim.parse::<u64>().is_ok();
                if dim == "_" || !(is_number || uses(symbol(dim)) > 1) {
                    continue;
                }
                self.refuse_view(&format!("one short in {name}"), spec, Code::SHAPE, |view| {
                    let size = if axis == 0 { &mut view.rows } else { &mut view.cols };
                    *size -= 1;
                });
            }
        }
        Ok(())
    }

    fn extents(&mut self) -> Result<()> {
        for spec in self.present() {
            self.refuse_view("just past the end", spec, Code::HANDLE, |view| view.offset += 1 << 20);
            self.refuse_view("at an offset that overflows", spec, Code::HANDLE, |view| view.offset = u64::MAX);
            if self.stage.view(spec.name).rows > 1 {
                self.refuse_view("with rows that overflow", spec, Code::HANDLE, |view| view.row_stride = u64::MAX / 2);
                self.refuse_view("with overlapping rows", spec, Code::SHAPE, |view| {
                    view.row_stride = view.cols - 1;
                });
            }
        }
        Ok(())
    }

    fn handles(&mut self) -> Result<()> {
        for spec in self.present() {
            let right = self.stage.view(spec.name);
            let elements = right.end().unwrap_or(0);
            let stale = self.session.alloc(right.dtype, elements)?;
            self.session.free(stale)?;
            self.refuse_view("freed", spec, Code::HANDLE, |view| view.buffer = stale);
            let successor = self.session.alloc(right.dtype, elements)?;
            self.refuse_view("freed and its slot reused", spec, Code::HANDLE, |view| view.buffer = stale);
            self.session.free(successor)?;
            let foreign = Handle(right.buffer.0 ^ (1 << 63));
            self.refuse_view("of another session", spec, Code::HANDLE, |view| view.buffer = foreign);
            let unborn = Handle(right.buffer.0 | 0xff_ffff);
            self.refuse_view("never given out", spec, Code::HANDLE, |view| view.buffer = unborn);
        }
        Ok(())
    }

    /// Outputs on an input's memory where the catalogue does not allow it, outputs that overlap it by half where it does, and two
    /// outputs on the same memory.
    fn overlaps(&mut self) -> Result<()> {
        let spec = self.case.spec;
        for (o, output) in spec.outputs.iter().enumerate() {
            let view = self.stage.view(output.name);
            let fits = |other: &View| {
                (other.rows, other.cols, other.dtype) == (view.rows, view.cols, view.dtype) && !view.is_none()
            };
            for input in spec.inputs {
                let other = self.stage.view(input.name);
                if !fits(&other) {
                    continue;
                }
                let allowed = spec.aliases.contains(&(output.name, input.name));
                let what = if allowed { "half over" } else { "in the place of" };
                self.refuse_view(&format!("{what} `{}`", input.name), output, Code::ALIAS, |view| {
                    *view = View { offset: other.offset + u64::from(allowed), ..other };
                });
            }
            for second in &spec.outputs[o + 1..] {
                let other = self.stage.view(second.name);
                if fits(&other) {
                    self.refuse_view(&format!("in the place of `{}`", second.name), output, Code::ALIAS, |view| {
                        *view = other;
                    });
                }
            }
        }
        Ok(())
    }

    /// Writes `values` to an integer operand, expects a refusal, and restores the right values.
    fn refuse_values(&mut self, name: &str, first: usize, values: &[i64], code: Code) -> Result<()> {
        let view = self.stage.view(name);
        let mut bytes = Vec::new();
        values.iter().for_each(|&v| encode(view.dtype, v as f64, &mut bytes));
        self.session.upload(view.buffer, view.offset + first as u64, &bytes)?;
        let draft = self.stage.draft();
        self.refuse(format!("`{name}` with {values:?} from {first}"), &[code], &draft);
        self.stage.restore(self.session)
    }

    fn indices(&mut self) -> Result<()> {
        let op = self.case.spec.name;
        for (_, name, table) in wrong().flat_map(|w| w.indices).filter(|(o, _, _)| *o == op) {
            let Some(last) = self.case.operand(name).and_then(|t| t.data.len().checked_sub(1)) else { continue };
            let mut bad = vec![-1, i64::from(i32::MAX), i64::from(i32::MIN)];
            bad.extend(table.map(|table| self.stage.view(table).rows as i64));
            for value in bad {
                self.refuse_values(name, last, &[value], Code::INDEX)?;
                self.refuse_values(name, 0, &[value], Code::INDEX)?;
            }
        }
        for (_, name) in wrong().flat_map(|w| w.offsets).filter(|(o, _)| *o == op) {
            let Some(right) = self.case.operand(name).map(|t| t.data.clone()) else { continue };
            let (last, end) = (right.len() - 1, right[right.len() - 1] as i64);
            for (at, value) in [(0, 1), (0, -1), (last, end + 1), (last, end - 1), (1, end + 1), (last - 1, 0)] {
                self.refuse_values(name, at, &[value], Code::INDEX)?;
            }
        }
        for (_, name) in wrong().flat_map(|w| w.distinct).filter(|(o, _)| *o == op) {
            let Some(right) = self.case.operand(name).filter(|t| t.cols > 1) else { continue };
            let (first, second) = (right.data[0] as i64, right.data.len() - right.cols);
            self.refuse_values(name, 1, &[first], Code::INVALID_ARGUMENT)?;
            let last = right.data[right.data.len() - 1] as i64;
            self.refuse_values(name, second, &[last], Code::INVALID_ARGUMENT)?;
        }
        if op == "decode_attention" {
            let capacity = self.case.attr("capacity").unwrap_or(0) as i64;
            self.refuse_values("lengths", 0, &[capacity], Code::INDEX)?;
            let slots = self.stage.view("k_cache").rows as i64 / capacity.max(1);
            self.refuse_values("slots", 0, &[slots], Code::INDEX)?;
            self.refuse_values("slots", 0, &[1, 1], Code::INVALID_ARGUMENT)?;
        }
        Ok(())
    }

    fn values(&mut self) -> Result<()> {
        for (_, name, value, codes) in wrong().flat_map(|w| w.values).filter(|(o, _, _, _)| *o == self.case.spec.name) {
            let mut draft = self.stage.draft();
            for (_, kind, bits) in draft.attrs.iter_mut().filter(|(n, _, _)| n == name) {
                *bits = if *kind == Attr::FLOAT { value.to_bits() } else { *value as i64 as u64 };
            }
            self.refuse(format!("{name} = {value}"), codes, &draft);
        }
        Ok(())
    }

    /// The right call on the same buffers, after all wrong ones.
    fn works(&mut self, prepared: &Prepared) -> Result<Agreement, Broken> {
        self.stage.restore(self.session).map_err(|e| e.to_string())?;
        self.stage.draft().invoke(self.session).map_err(|e| e.to_string())?;
        let found = self.stage.collect(self.session).map_err(|e| e.to_string())?;
        compare(self.case, &prepared.expected, &prepared.limits, &found)
    }
}
