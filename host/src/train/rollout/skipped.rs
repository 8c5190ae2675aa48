//! Rollouts of which the objectives keep no answer: they are skipped, and the next prompts are answered.

use crate::error::{Error, Result};

/// Rollouts in a row that may be skipped. The next one ends the run.
const MOST: u64 = 20;

/// Rollouts that were skipped since one was learned from.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    in_row: u64,
    /// The note that is due, until it is taken.
    note: Option<String>,
    /// Whether the note was due before.
    noted: bool,
}

/// A rollout of which no answer was kept.
#[derive(Debug)]
pub(super) struct NoneKept<'a> {
    /// The objectives that dropped answers.
    pub(super) objectives: &'a [String],
    /// Answers to each prompt.
    pub(super) samples: usize,
    /// The reward of each answer; answers to one prompt are neighbours. Empty if no reward is weighted.
    pub(super) rewards: &'a [f64],
    /// Answers that were drawn, and those that were cut off.
    pub(super) answers: usize,
    pub(super) cut_off: usize,
    /// `rollout.max_new_tokens`.
    pub(super) max_new_tokens: usize,
}

impl Skipped {
    /// Counts a rollout of which no answer was kept.
    ///
    /// # Errors
    /// Too many of them in a row, with the probable cause and remedies.
    pub(super) fn add(&mut self, rollout: &NoneKept<'_>) -> Result<()> {
        self.in_row += 1;
        if self.in_row > MOST {
            let what =
                format!("{} no answer of {} rollouts in a row: {}", rollout.keepers(), self.in_row, rollout.why());
            return Err(Error::run(what).with_hint(rollout.remedies()));
        }
        if !self.noted {
            self.noted = true;
            self.note = Some(format!(
                "{} no answer of a rollout: {}; such a rollout is skipped and the next prompts are answered (the metric \
                 answers/skipped counts them; after {MOST} in a row the run ends)",
                rollout.keepers(),
                rollout.why()
            ));
        }
        Ok(())
    }

    /// Takes the number of rollouts skipped before one of which answers were kept.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.in_row)
    }

    /// Takes the note that is due: one in the life of the process.
    pub(super) fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }
}

impl NoneKept<'_> {
    fn keepers(&self) -> String {
        let names: Vec<String> = self.objectives.iter().map(|id| format!("\"{id}\"")).collect();
        match names.len() {
            1 => format!("objective {} keeps", names.concat()),
            _ => format!("objectives {} together keep", names.join(", ")),
        }
    }

    /// Prompts of which all answers have the same reward, and all prompts.
    fn ties(&self) -> (usize, usize) {
        let groups = self.rewards.chunks(self.samples.max(1));
        let equal = |group: &&[f64]| group.iter().all(|reward| group.first() == Some(reward));
        (groups.clone().filter(equal).count(), groups.len())
    }

    fn why(&self) -> String {
        let ((equal, prompts), Self { answers, cut_off, max_new_tokens, .. }) = (self.ties(), self);
        let ties = (prompts > 0).then(|| match equal {
            equal if equal == prompts => format!("all answers to each of its {prompts} prompts have the same reward"),
            _ => format!("all answers have the same reward for {equal} of its {prompts} prompts"),
        });
        let cut = format!("{cut_off} of {answers} answers were cut off at rollout.max_new_tokens = {max_new_tokens}");
        ties.into_iter().chain([cut]).collect::<Vec<_>>().join("; ")
    }

    /// What helps. A run that is resumed keeps its settings, so they are those of a new run.
    fn remedies(&self) -> String {
        let (equal, prompts) = self.ties();
        let (tied, cut) = (equal > 0 && equal == prompts, 2 * self.cut_off > self.answers);
        let more = "a larger rollout.samples or rollout.temperature, easier or harder prompts, or a reward that tells answers apart";
        let longer = "a larger rollout.max_new_tokens, or without the option that drops answers that were cut off";
        let what = match (tied, cut) {
            (true, true) => format!("{longer}; and with {more}"),
            (false, true) => longer.to_owned(),
            _ => format!("{more}; or without the option of the objective, if it is one, that drops answers"),
        };
        format!("train in a new run (model.from continues from this one's last checkpoint, if it has one) with {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout<'a>(objectives: &'a [String], rewards: &'a [f64], cut_off: usize) -> NoneKept<'a> {
        NoneKept { objectives, samples: 2, rewards, answers: 4, cut_off, max_new_tokens: 8 }
    }

    /// Catches a run that ends with the first such rollout, one that never ends, a note for each of them, a count that continues
    /// after a rollout that was learned from, and an error without cause and remedy.
    #[test]
    fn rollouts_without_answers_are_skipped_until_they_are_too_many() {
        let (ids, rewards) = (["online-dpo".to_owned()], [1.0, 1.0, 0.0, 0.0]);
        let tied = rollout(&ids, &rewards, 1);
        let mut skipped = Skipped::default();
        for is_noted in [true, false] {
            (0..MOST).for_each(|_| skipped.add(&tied).unwrap());
            assert_eq!((skipped.take_note().is_some(), skipped.take_note().is_some()), (is_noted, false));
            assert_eq!(skipped.take(), MOST);
        }
        let error = (0..=MOST).map(|_| skipped.add(&tied)).find_map(Result::err).unwrap();
        assert_eq!(error.exit_code(), 1);
        let report = error.report();
        for part in [
            "\"online-dpo\" keeps no answer of 21 rollouts in a row",
            "each of its 2 prompts",
            "rollout.temperature",
            "model.from",
        ] {
            assert!(report.contains(part), "{part} is missing in {report}");
        }
    }

    /// Catches ties that are counted over all answers and not for each prompt, and a remedy for another cause.
    #[test]
    fn the_cause_is_that_of_the_rollout() {
        let ids = ["a".to_owned(), "b".to_owned()];
        let different = rollout(&ids, &[1.0, 0.0, 0.0, 0.0], 4);
        assert!(different.why().starts_with("all answers have the same reward for 1 of its 2 prompts; 4 of 4 answers"));
        assert!(different.keepers().contains("\"a\", \"b\" together keep"));
        assert!(
            different.remedies().contains("larger rollout.max_new_tokens")
                && !different.remedies().contains("temperature")
        );
        let unscored = rollout(&ids, &[], 0);
        assert!(unscored.why().starts_with("0 of 4 answers were cut off"));
    }
}
