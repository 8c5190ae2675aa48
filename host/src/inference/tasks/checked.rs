//! Answers that a reward checks: its mean score, and pass@k.

use std::collections::BTreeMap;

use plugin_api::{
    Code,
    manifest::kind,
    reward::{Column, Reward, Sample},
};
use plugin_api_load::LoadedReward;
use serde::Serialize;
use serde_json::{Value, json};

use super::spread::mean;
use crate::{
    capacity,
    config::{Override, options::from_command_line},
    data::{Examples, Sequence, place::Place, rows::kind::ANSWER},
    error::{Error, Result},
    generate::GenerateOptions,
    inference::saved_model::{BackendChoice, Opened},
    plugins::Registry,
    runs::breadcrumb,
    train::{
        eval::{pass_at_k::pass_at_k, prompts::EvalPrompt},
        rollout::sampling::{Answer, Policy},
    },
};

/// How answers are drawn and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Id of the reward plugin.
    pub reward: String,
    /// Its options.
    pub options: Vec<Override>,
    /// Answers to each prompt, at least 1.
    pub samples: usize,
    /// The values of k, each at most `samples`.
    pub pass_at: Vec<usize>,
    /// How the answers are drawn.
    pub sampling: GenerateOptions,
}

/// An answer passes if its score is at least this.
const PASSED: f64 = 1.0;

/// Bytes of an answer in addition to its prompt, at least.
const ANSWER_BYTES: u64 = 128;

/// Figures of checked answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckedFigures {
    /// The reward.
    pub reward: String,
    /// Mean score.
    pub score: f64,
    /// Its standard error, over prompts.
    pub score_stderr: Option<f64>,
    /// By k: the probability that at least one of k answers passes, as the mean over prompts.
    pub pass_at: BTreeMap<usize, f64>,
    /// Their standard errors, over prompts.
    pub pass_at_stderr: BTreeMap<usize, Option<f64>>,
    /// Prompts.
    pub prompts: usize,
    /// Answers to each.
    pub samples: usize,
    /// Share of answers that the model ended.
    pub ended: f64,
    /// A line for each answer.
    #[serde(skip)]
    pub lines: Vec<Value>,
}

/// A reward plugin that is open.
pub struct Checker {
    id: String,
    plugin: LoadedReward,
    // Declared last: the instance ends before its library.
    _library: plugin_api_load::Library,
}

impl Checker {
    /// Opens a reward plugin.
    ///
    /// # Errors
    /// A plugin that is missing or refuses its options.
    pub fn open(check: &Check, choice: &BackendChoice) -> Result<Checker> {
        let registry = Registry::discover(&choice.folders);
        let library = breadcrumb::within(&check.reward, "open", || registry.load(kind::REWARD, &check.reward))?;
        let manifest = breadcrumb::within(&check.reward, "manifest", || library.reward_manifest())?;
        let options = from_command_line(&manifest.options, &check.options)?;
        let plugin = breadcrumb::within(&check.reward, "create", || library.reward(&options))?;
        Ok(Checker { id: check.reward.clone(), plugin, _library: library })
    }

    /// Returns a finite score for each sample.
    fn scores(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let scores = self.raw_scores(samples)?;
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            let (score, prompt) = (scores[at], &samples[at].prompt);
            return Err(Error::run(format!("reward \"{}\" returned {score} for an answer to {prompt:?}", self.id)));
        }
        Ok(scores)
    }

    /// Returns a score for each sample, as the plugin returns it.
    fn raw_scores(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        breadcrumb::within(&self.id, "score", || self.plugin.score(samples)).map_err(|error| {
            let is_column = error.code == Code::ARRAY;
            let error = Error::from(error).context(format!("reward \"{}\" cannot score an answer", self.id));
            if is_column {
                error.with_hint(
                    "name the column that the reward reads: --column answer=NAME, or its --option column=NAME",
                )
            } else {
                error
            }
        })
    }
}

impl Opened {
    /// Answers the prompts and has the answers checked. `place_of` returns the place of a row, for errors.
    ///
    /// # Errors
    /// Columns that the reward lacks; errors of the plugin and of the backend.
    pub fn check_answers(
        &self,
        data: &dyn Examples,
        prompts: &[EvalPrompt],
        check: &Check,
        checker: &Checker,
        place_of: &dyn Fn(u64) -> Option<Place>,
    ) -> Result<CheckedFigures> {
        let sample = |prompt: &EvalPrompt| Sample {
            prompt: String::new(),
            completion: String::new(),
            ended: true,
            columns: columns(data, prompt, Vec::new()),
        };
        // An empty answer to every prompt finds rows that the reward cannot read, before any answer is generated.
        let empty: Vec<Sample> = prompts.iter().map(sample).collect();
        if let Err(error) = checker.raw_scores(&empty) {
            // One by one, the row that it is about is found.
            let mut each = prompts.iter().zip(&empty);
            let found = each.find_map(|(prompt, sample)| {
                let error = checker.raw_scores(std::slice::from_ref(sample)).err()?;
                Some((place_of(prompt.prompt().row), error))
            });
            let (place, error) = found.unwrap_or((None, error));
            let what = place.map_or_else(
                || "the rows cannot be checked".to_owned(),
                |place| format!("{place}: the row cannot be checked"),
            );
            let refusal = Error::request(what);
            let hint = error.hint().map(str::to_owned);
            return Err(match hint {
                Some(hint) => refusal.with_hint(hint),
                None => refusal,
            }
            .with_cause(error));
        }
        let of_prompt = |prompt: &EvalPrompt| {
            (check.samples as u64).saturating_mul(4 * prompt.prompt().ids.len() as u64 + ANSWER_BYTES)
        };
        capacity::check(prompts.iter().map(of_prompt).fold(0, u64::saturating_add)).map_err(|why| {
            Error::request(format!("--samples {} for {} prompts: {why}", check.samples, prompts.len()))
                .with_hint("lower --samples, or --generate")
        })?;
        let inputs: Vec<Sequence> =
            prompts.iter().flat_map(|prompt| vec![prompt.prompt().clone(); check.samples]).collect();
        let policy = Policy { model: &self.model, tokenizer: &self.tokenizer, data };
        let mut answers: Vec<Answer> = policy.answer(&inputs, &check.sampling)?;
        for (answer, prompt) in answers.iter_mut().zip(prompts.iter().flat_map(|prompt| vec![prompt; check.samples])) {
            answer.sample.columns = columns(data, prompt, std::mem::take(&mut answer.sample.columns));
        }
        let samples: Vec<Sample> = answers.iter().map(|answer| answer.sample.clone()).collect();
        let scores = checker.scores(&samples)?;
        let by_prompt: Vec<&[f64]> = scores.chunks(check.samples).collect();
        let (score, score_stderr) = mean(&by_prompt.iter().map(|scores| mean(scores).0).collect::<Vec<_>>());
        let passed = |scores: &&[f64]| scores.iter().filter(|score| **score >= PASSED).count();
        let pass = |k: &usize| {
            let estimates = by_prompt.iter().map(|scores| pass_at_k(scores.len(), passed(scores), *k));
            (*k, mean(&estimates.collect::<Vec<_>>()))
        };
        let pass_at: BTreeMap<usize, (f64, Option<f64>)> = check.pass_at.iter().map(pass).collect();
        let lines = answers.iter().zip(&scores).enumerate().map(|(index, (answer, score))| {
            let prompt = &prompts[index / check.samples];
            json!({
                "prompt": prompt.shown(),
                "sample": index % check.samples,
                "answer": answer.sample.completion,
                "expected": prompt.answer(),
                "score": score,
                "passed": *score >= PASSED,
                "tokens": answer.sequence.supervised.iter().filter(|supervised| **supervised).count(),
                "ended": answer.sample.ended,
            })
        });
        Ok(CheckedFigures {
            reward: check.reward.clone(),
            score,
            score_stderr,
            pass_at: pass_at.iter().map(|(k, (value, _))| (*k, *value)).collect(),
            pass_at_stderr: pass_at.iter().map(|(k, (_, error))| (*k, *error)).collect(),
            prompts: prompts.len(),
            samples: check.samples,
            ended: samples.iter().filter(|sample| sample.ended).count() as f64 / samples.len().max(1) as f64,
            lines: lines.collect(),
        })
    }
}

/// The columns of a prompt's row: its own, and the answer that it gives elsewhere, such as a completion, as `answer`.
fn columns(data: &dyn Examples, prompt: &EvalPrompt, own: Vec<(String, Column)>) -> Vec<(String, Column)> {
    let row = data.row_text(prompt.prompt().row);
    let mut columns =
        if own.is_empty() { row.as_ref().map(|row| row.columns.clone()).unwrap_or_default() } else { own };
    if let Some(answer) = row.and_then(|row| row.answer)
        && columns.iter().all(|(name, _)| name != ANSWER)
    {
        columns.push((ANSWER.to_owned(), Column::Text(answer)));
    }
    columns
}
