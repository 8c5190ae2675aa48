//! A case on a session: its operands in buffers, the call as data that can be changed, and the result.

use super::{
    case::Case,
    tensor::{Tensor, decode, encode, size_of},
};
use plugin_api::abi::{RSlice, RStr};
use plugin_api::{
    Error, Result,
    abi::{Attr, Call, DType, Handle, View},
    backend::Session,
};

/// Elements behind the last operand of every buffer: room for views that are slightly wrong.
const SLACK: usize = 8;

/// Layout of the operands in their buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// From the buffer's start, rows adjacent.
    Dense,
    /// First element at 3, a gap of five elements between rows.
    Strided,
}

impl Layout {
    fn lead_and_gap(self) -> (usize, usize) {
        match self {
            Layout::Dense => (0, 0),
            Layout::Strided => (3, 5),
        }
    }
}

/// A call as data.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Operation id.
    pub op: u32,
    /// Version of its meaning.
    pub version: u32,
    /// Inputs in catalogue order.
    pub inputs: Vec<View>,
    /// Outputs in catalogue order.
    pub outputs: Vec<View>,
    /// Name, kind and bits.
    pub attrs: Vec<(&'static str, u32, u64)>,
}

impl Draft {
    /// Calls `f` with the call.
    pub fn with_call<R>(&self, f: impl FnOnce(&Call<'_>) -> R) -> R {
        let attr = |&(name, kind, bits): &(&'static str, u32, u64)| Attr {
            name: RStr::from_str(name),
            kind,
            reserved: 0,
            bits,
        };
        let attrs: Vec<Attr<'_>> = self.attrs.iter().map(attr).collect();
        f(&Call {
            op: self.op,
            version: self.version,
            inputs: RSlice::from_slice(&self.inputs),
            outputs: RSlice::from_slice(&self.outputs),
            attrs: RSlice::from_slice(&attrs),
        })
    }

    /// Runs it.
    pub fn invoke(&self, session: &mut dyn Session) -> Result<()> {
        self.with_call(|call| session.invoke(call))
    }
}

struct Buffer {
    handle: Handle,
    dtype: DType,
    /// Its bytes before the call.
    image: Vec<u8>,
}

/// A case whose operands lie in a session's buffers.
pub struct Stage<'a> {
    case: &'a Case,
    buffers: Vec<Buffer>,
    views: Vec<(&'static str, View)>,
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Outputs by name.
    pub outputs: Vec<(&'static str, Tensor)>,
    /// The same, as bytes.
    pub bits: Vec<u8>,
    /// The first element outside the outputs that the call changed.
    pub trespass: Option<String>,
}

impl Outcome {
    /// An output's values.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|(n, _)| *n == name).map(|(_, tensor)| tensor)
    }
}

/// The value between operands, which differs from any result.
fn sentinel(dtype: DType) -> f64 {
    if dtype == DType::I32 { f64::from(i32::MIN + 7) } else { f64::NAN }
}

impl<'a> Stage<'a> {
    /// Uploads every operand of `case`, computing in `compute`.
    pub fn place(session: &mut dyn Session, case: &'a Case, compute: DType, layout: Layout) -> Result<Stage<'a>> {
        let mut stage = Stage { case, buffers: Vec::new(), views: Vec::new() };
        let placed = stage.fill(session, compute, layout);
        match placed {
            Ok(()) => Ok(stage),
            Err(e) => {
                stage.release(session)?;
                Err(e)
            }
        }
    }

    fn fill(&mut self, session: &mut dyn Session, compute: DType, layout: Layout) -> Result<()> {
        let case = self.case;
        if let Some((name, _)) = case.operands.iter().find(|(n, _)| !case.specs().any(|s| s.name == *n)) {
            return Err(Error::internal(format!("{} has no operand `{name}`", case.spec.name)));
        }
        let is_whole = |group: &&&[&str]| group.iter().all(|name| case.operand(name).is_some());
        let groups: Vec<&[&str]> = case.packed.iter().filter(is_whole).copied().collect();
        for spec in case.specs() {
            let Some(tensor) = case.operand(spec.name) else { continue };
            let dtype = case.dtype_of(spec, compute);
            match groups.iter().find(|group| group.contains(&spec.name)) {
                Some(group) if group[0] == spec.name => {
                    let members: Vec<_> = group.iter().filter_map(|n| case.operand(n)).collect();
                    self.upload(session, group, &members, dtype, layout)?;
                }
                Some(_) => {}
                None => self.upload(session, &[spec.name], &[tensor], dtype, layout)?,
            }
        }
        Ok(())
    }

    /// Places `members` next to each other in a new buffer.
    fn upload(
        &mut self,
        session: &mut dyn Session,
        names: &[&str],
        members: &[&Tensor],
        dtype: DType,
        layout: Layout,
    ) -> Result<()> {
        let (lead, gap) = layout.lead_and_gap();
        let rows = members[0].rows;
        let stride = members.iter().map(|t| t.cols).sum::<usize>() + gap;
        // Members without rows need no room beyond their starting positions.
        let room = if rows == 0 { stride.min(1 << 12) } else { rows * stride };
        let mut values = vec![sentinel(dtype); lead + room + SLACK];
        let handle = session.alloc(dtype, values.len() as u64)?;
        let mut column = lead;
        for (name, tensor) in names.iter().zip(members) {
            for r in 0..rows {
                values[column + r * stride..][..tensor.cols]
                    .copy_from_slice(&tensor.data[r * tensor.cols..][..tensor.cols]);
            }
            let name = self.case.specs().find(|s| s.name == *name).map_or("", |s| s.name);
            let shape = View::dense(handle, dtype, rows as u64, tensor.cols as u64);
            self.views.push((name, View { offset: column as u64, row_stride: stride as u64, ..shape }));
            column += tensor.cols;
        }
        let mut image = Vec::with_capacity(values.len() * size_of(dtype));
        values.iter().for_each(|&v| encode(dtype, v, &mut image));
        session.upload(handle, 0, &image).inspect_err(|_| drop(session.free(handle)))?;
        self.buffers.push(Buffer { handle, dtype, image });
        Ok(())
    }

    /// Uploads every buffer's image again, after a call that may have written to it.
    pub fn restore(&self, session: &mut dyn Session) -> Result<()> {
        self.buffers.iter().try_for_each(|b| session.upload(b.handle, 0, &b.image))
    }

    /// An operand's view; absent ones are [`View::NONE`].
    pub fn view(&self, name: &str) -> View {
        self.views.iter().find(|(n, _)| *n == name).map_or(View::NONE, |(_, view)| *view)
    }

    /// Makes an output use an input's view.
    pub fn alias(&mut self, output: &str, input: &str) {
        let shared = self.view(input);
        self.views.iter_mut().filter(|(n, _)| *n == output).for_each(|(_, view)| *view = shared);
    }

    /// The call, unchanged.
    pub fn draft(&self) -> Draft {
        let spec = self.case.spec;
        Draft {
            op: spec.id,
            version: spec.version,
            inputs: spec.inputs.iter().map(|operand| self.view(operand.name)).collect(),
            outputs: spec.outputs.iter().map(|operand| self.view(operand.name)).collect(),
            attrs: self.case.attrs.clone(),
        }
    }

    /// Reads every output and checks that nothing else changed.
    pub fn collect(&self, session: &mut dyn Session) -> Result<Outcome> {
        let mut outcome = Outcome { outputs: Vec::new(), bits: Vec::new(), trespass: None };
        for buffer in &self.buffers {
            let size = size_of(buffer.dtype);
            let mut now = vec![0; buffer.image.len()];
            session.download(buffer.handle, 0, &mut now)?;
            let mut expected = buffer.image.clone();
            for spec in self.case.spec.outputs {
                let view = self.view(spec.name);
                if view.buffer != buffer.handle {
                    continue;
                }
                let mut tensor =
                    Tensor { rows: view.rows as usize, cols: view.cols as usize, data: Vec::new(), dtype: None };
                for r in 0..view.rows {
                    let start = (view.offset + r * view.row_stride) as usize * size;
                    let range = start..start + view.cols as usize * size;
                    expected[range.clone()].copy_from_slice(&now[range.clone()]);
                    outcome.bits.extend_from_slice(&now[range.clone()]);
                    tensor.data.extend(now[range].chunks_exact(size).map(|b| decode(buffer.dtype, b)));
                }
                outcome.outputs.push((spec.name, tensor));
            }
            if let Some(at) = now.iter().zip(&expected).position(|(a, b)| a != b) {
                let names: Vec<_> =
                    self.views.iter().filter(|(_, v)| v.buffer == buffer.handle).map(|(n, _)| *n).collect();
                let place = format!("element {} of the buffer of {names:?}", at / size);
                outcome.trespass.get_or_insert(place);
            }
        }
        Ok(outcome)
    }

    /// Frees the buffers.
    pub fn release(self, session: &mut dyn Session) -> Result<()> {
        self.buffers.iter().try_for_each(|b| session.free(b.handle))
    }

    /// The buffers' write versions.
    pub fn versions(&self, session: &dyn Session) -> Result<Vec<(Handle, u64)>> {
        self.buffers.iter().map(|b| session.write_version(b.handle).map(|v| (b.handle, v))).collect()
    }
}

/// Runs `case` once on fresh operands.
pub fn run(session: &mut dyn Session, case: &Case, compute: DType, layout: Layout) -> Result<Outcome> {
    run_aliased(session, case, compute, layout, None)
}

/// Runs `case` with one output on an input's memory.
pub fn run_aliased(
    session: &mut dyn Session,
    case: &Case,
    compute: DType,
    layout: Layout,
    alias: Option<(&str, &str)>,
) -> Result<Outcome> {
    let mut stage = Stage::place(session, case, compute, layout)?;
    if let Some((output, input)) = alias {
        stage.alias(output, input);
    }
    let outcome = stage.draft().invoke(session).and_then(|()| stage.collect(session));
    let released = stage.release(session);
    // The call's own error is more informative than that of a session it left unusable.
    let outcome = outcome?;
    released.map(|()| outcome)
}
