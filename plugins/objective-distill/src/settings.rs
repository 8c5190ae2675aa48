//! Options of distillation, and what they require.

use plugin_api::prelude::*;

options! {
    /// Options of distillation.
    pub struct Config {
        /// The divergence: 0 is forward, KL(teacher || policy); 1 is reverse, KL(policy || teacher); between them the generalised Jensen-Shannon divergence in which the teacher has this weight.
        beta: f64 = 0.0, in 0.0..=1.0;
        /// Divides the logits of both models before they are compared.
        temperature: f64 = 1.0, in 0.01..=100.0;
        /// Compare only the probabilities of the teacher's most probable ids, this many, and that of all others together; 0: the whole distributions.
        top_k: i64 = 0, in 0..=4096;
        /// Weight of the negative log-likelihood of the tokens; 0: left out.
        nll: f64 = 0.0, in 0.0..=1e6;
    }
}

/// Checked options.
pub struct Settings {
    /// The divergence, from forward (0) to reverse (1).
    pub beta: f64,
    /// The temperature of both models.
    pub temperature: f64,
    /// Ids to compare; 0: all.
    pub top_k: u64,
    /// Weight of the likelihood.
    pub nll: f64,
}

impl Settings {
    /// Checks options against each other.
    ///
    /// # Errors
    /// [`Code::OPTION`] for a likelihood beside candidates at a temperature other than 1: both would be read at that temperature.
    pub fn new(config: Config) -> Result<Self> {
        let Config { beta, temperature, top_k, nll } = config;
        if top_k > 0 && nll > 0.0 && temperature != 1.0 {
            let why = "options `top_k`, `nll` and `temperature`: with candidates, the likelihood would be that at this \
                       temperature; use temperature = 1, top_k = 0 or nll = 0";
            return Err(Error::new(Code::OPTION, why));
        }
        let top_k = u64::try_from(top_k).unwrap_or_default();
        Ok(Self { beta, temperature, top_k, nll })
    }

    /// What an instance reads. A whole divergence has its own temperature; candidates are read at the instance's.
    pub fn requirements(&self) -> Requirements {
        let whole = ["teacher.kl"].as_slice();
        let parts = ["candidates", "tail", "teacher.candidates", "teacher.tail"].as_slice();
        let compared = if self.top_k == 0 { whole } else { parts };
        let likelihood = ["logp"].into_iter().filter(|_| self.nll > 0.0);
        let reads = Requirements::reading(compared.iter().copied().chain(likelihood));
        if self.top_k == 0 {
            let divergence = Divergence::new(self.beta, self.temperature);
            return Requirements { divergence: Some(divergence), ..reads };
        }
        let candidates = Candidates::new("teacher", self.top_k);
        Requirements { candidates: Some(candidates), temperature: self.temperature, ..reads }
    }
}
