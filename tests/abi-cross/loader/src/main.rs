//! A host that loads the plugins of the given libraries, calls every slot and prints the results: `abi-cross-loader LIBRARY...`,
//! or `abi-cross-loader --own-check LIBRARY` for the result of only `abi_stable`'s check.
//!
//! One line per plugin: its id, its contract version, and the results of the slots appended by the next minor version (root,
//! instance): a number, `missing`, or `unknown` if this host's own minor version does not have them. Exit code 1 if anything is
//! refused or returns a wrong result.

use plugin_api::{
    Error, Result,
    abi::header::{ABI_MAJOR, ABI_MINOR},
    backend::{
        Call, DType, Op, Session, SessionOptions,
        ops::{Fill, Nop},
    },
    batch::{Batch, Scope, names},
    objective::{Objective, Verdict},
    options::OptionMap,
    reward::{Column, Reward, Sample},
};
use plugin_api_load::{Library, LoadedObjective, LoadedReward, LoadedSession, PluginInfo, scan};
use std::{fmt::Debug, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let own_check = paths.first().is_some_and(|p| p.as_os_str() == "--own-check");
    if own_check {
        paths.remove(0);
    }
    println!("host {ABI_MAJOR}.{ABI_MINOR}");
    for path in paths {
        if let Err(error) = library(&path, own_check) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn library(path: &std::path::Path, own_check: bool) -> Result<()> {
    for info in scan(path)? {
        if own_check {
            println!("{} {}", info.id, own_check_alone(&info));
        } else {
            println!("{} {}.{} {}", info.id, info.abi_major, info.abi_minor, plugin(&info)?);
        }
    }
    Ok(())
}

/// Calls everything that a plugin has; returns the results of its appended slots.
fn plugin(info: &PluginInfo) -> Result<String> {
    let library = Library::load(info)?;
    let options: OptionMap = [("factor".to_owned(), 3.0.into())].into_iter().collect();
    let instance = match info.kind.as_str() {
        "objective" => {
            same("summary", library.objective_manifest()?.summary, "crossing".to_owned())?;
            objective(&mut library.objective(&options)?)?
        }
        "backend" => {
            same("summary", library.backend_manifest()?.summary, "crossing".to_owned())?;
            let wrong = SessionOptions { device: "abacus".into(), ..Default::default() };
            same("wrong device", library.session(&wrong).is_err(), true)?;
            session(&mut library.session(&SessionOptions::default())?)?
        }
        _ => {
            same("summary", library.reward_manifest()?.summary, "crossing".to_owned())?;
            reward(&library.reward(&options)?)?
        }
    };
    Ok(format!("root={} instance={instance}", appended_to_root(&library)))
}

fn same<T: PartialEq + Debug>(what: &str, got: T, expected: T) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::internal(format!("{what}: {got:?}, expected {expected:?}"))) }
}

fn objective(o: &mut LoadedObjective) -> Result<String> {
    let batch = Batch::new()
        .with(names::OFFSETS, Scope::BATCH, vec![0.0, 2.0])
        .with(names::MASK, Scope::TOKEN, vec![1.0, 0.0])
        .with("token", Scope::TOKEN, vec![5.0, 6.0])
        .with_statistic("logp", Scope::TOKEN, vec![-0.5, -2.0]);
    let needs = o.requirements()?;
    same("requirements", (needs.linear, needs.temperature), (true, 3.0))?;
    let composed = o.compose(&batch, 9)?.unwrap_or_default();
    same("compose", (composed.get("token")?, composed.get("seed")?), (&[6.0, 5.0][..], &[9.0][..]))?;
    same("prepare", o.prepare(&batch)?.get("advantage")?, &[0.5, -1.0][..])?;
    same("weigh", o.weigh(&batch)?, vec![("nll".to_owned(), 1.0)])?;
    let loss = o.loss(&batch)?;
    let term = loss.terms.first().ok_or_else(|| Error::internal("no term was returned"))?;
    same("term", (term.name.as_str(), term.coefficient, term.sum), ("nll", 3.0, 0.5))?;
    same("cotangents", term.cotangents.clone(), vec![("logp".to_owned(), vec![-1.0, 0.0])])?;
    same("metrics", loss.metrics.iter().map(|m| (m.value, m.weight)).collect::<Vec<_>>(), vec![(7.0, 8.0)])?;
    same("after_step", o.after_step(&[("kl".into(), 0.5)])?, Verdict::CONTINUE)?;
    same("after_step", o.after_step(&[("kl".into(), 1.5)])?, Verdict::STOP)?;
    same("state", o.state()?, vec![2])?;
    o.restore(&[40])?;
    same("restored state", o.state()?, vec![40])?;
    same("a refused state", o.restore(&[]).map_err(|e| e.plugin), Err("cross-objective".to_owned()))?;
    Ok(appended_to_objective(o))
}

fn session(s: &mut LoadedSession) -> Result<String> {
    let nop = |s: &mut LoadedSession| Nop {}.with_call(|call: &Call<'_>| s.invoke(call));
    let buffer = s.alloc(DType::F32, 4)?;
    s.upload(buffer, 1, &1.5f32.to_le_bytes())?;
    let mut bytes = [9; 8];
    s.download(buffer, 0, &mut bytes)?;
    same("download", bytes, [0, 0, 0, 0, 0, 0, 192, 63])?;
    same("write_version", s.write_version(buffer)?, 1)?;
    nop(s)?;
    let fill = Fill::default().with_call(|call: &Call<'_>| (s.workspace(call), s.invoke(call).is_err()));
    same("workspace, and an operation that is not there", fill, (101, true))?;
    same("supports", (s.supports(0, DType::F32), s.supports(1, DType::F32)), (true, false))?;
    same("memory", (s.memory().handles, s.memory().in_use > 0), (1, true))?;
    s.free(buffer)?;
    same("a stale handle", s.free(buffer).is_err(), true)?;
    same("memory kept", s.memory().cached > 0, true)?;
    s.trim();
    same("memory after trim", (s.memory().cached, s.memory().handles), (0, 0))?;
    s.sync()?;
    Ok(appended_to_session(s))
}

fn reward(r: &LoadedReward) -> Result<String> {
    let sample = |completion: &str, ended| Sample {
        prompt: "p".into(),
        completion: completion.into(),
        ended,
        columns: vec![("note".into(), Column::Text("ab".into())), ("answer".into(), Column::Number(0.25))],
    };
    same("score", r.score(&[sample("xyz", true), sample("", false)])?, vec![18.25, 6.25])?;
    Ok(appended_to_reward(r))
}

#[cfg(feature = "next-minor")]
mod appended {
    use super::*;

    fn shown(answer: Option<u64>) -> String {
        answer.map_or("missing".to_owned(), |number| number.to_string())
    }

    pub fn to_root(library: &Library) -> String {
        shown(library.appended())
    }

    pub fn to_objective(o: &LoadedObjective) -> String {
        shown(o.appended())
    }

    pub fn to_session(s: &LoadedSession) -> String {
        shown(s.appended())
    }

    pub fn to_reward(r: &LoadedReward) -> String {
        shown(r.appended())
    }

    pub fn own_check_alone(info: &PluginInfo) -> String {
        Library::own_check_alone(info).map_or_else(|_| "refused".to_owned(), |()| "accepted".to_owned())
    }
}

/// This host's minor version has no such slots.
#[cfg(not(feature = "next-minor"))]
mod appended {
    use super::*;

    pub fn to_root(_: &Library) -> String {
        "unknown".to_owned()
    }

    pub fn to_objective(_: &LoadedObjective) -> String {
        "unknown".to_owned()
    }

    pub fn to_session(_: &LoadedSession) -> String {
        "unknown".to_owned()
    }

    pub fn to_reward(_: &LoadedReward) -> String {
        "unknown".to_owned()
    }

    pub fn own_check_alone(_: &PluginInfo) -> String {
        "unknown".to_owned()
    }
}

use appended::{
    own_check_alone, to_objective as appended_to_objective, to_reward as appended_to_reward,
    to_root as appended_to_root, to_session as appended_to_session,
};
