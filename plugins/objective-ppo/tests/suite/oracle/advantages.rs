//! Families `gae`, `gae_whitened`, `gae_torchtune_whitened`, `masked_whiten` and `whiten_torchtune`: advantages from token
//! rewards.

use super::{Case, Rollout, Rows, TOLERANCE, family, kept, read, same, torchtune};
use objective_ppo::rollout::names;
use plugin_api::{groups::whiten, prelude::*};
use serde_json::{Value, json};

fn estimation(case: &Case, whiten_advantages: bool, whiten_rewards: bool) -> Value {
    json!({
        "kl_coef": 1.0, "gamma": case.number("gamma"), "gae_lambda": case.number("lam"),
        "whiten_advantages": whiten_advantages, "whiten_rewards": whiten_rewards,
    })
}

#[test]
fn advantages_and_returns_match_torchtune_before_whitening() {
    for case in family("gae") {
        let (rewards, values) = (case.rows("rewards"), case.rows("values"));
        let all = same(&rewards, 1.0);
        let found = Rollout::of_rewards(&all, &rewards, values).prepare(estimation(&case, false, false));
        case.all_near("advantages", found.get(names::ADVANTAGE).unwrap(), &all, TOLERANCE);
        case.all_near("returns", found.get(names::RETURN).unwrap(), &all, TOLERANCE);
    }
}

/// TRL whitens zeros behind the mask; nothing reads them. But where TRL 0.11.4 whitens rewards, those of padding are no longer 0
/// and enter the answer's advantages (0.16.1 masks again, and is compared in `rollout_trl`): its numbers are those of answers that
/// fill the whole row, with that reward on padding. Ours differ exactly where there is padding.
#[test]
fn gotcha_30_whitened_advantages_match_trl() {
    for case in family("gae_whitened") {
        let (rewards, mask) = (case.rows("rewards"), case.rows("mask"));
        let (all, whitens) = (same(&rewards, 1.0), read(&case.given, "whiten_rewards"));
        let ours = Rollout::of_rewards(&mask, &rewards, case.rows("values")).prepare(estimation(&case, true, whitens));
        case.all_near("values", ours.get(names::OLD_VALUE).unwrap(), &all, TOLERANCE);
        let (advantages, returns) = match whitens {
            false => (ours.get(names::ADVANTAGE).unwrap().to_vec(), ours.get(names::RETURN).unwrap().to_vec()),
            true => {
                let theirs = leaking(&case, &mask, rewards);
                let returns = theirs.get(names::RETURN).unwrap().to_vec();
                let runs_on = case.number("gamma") * case.number("lam") != 0.0;
                for (s, row) in mask.iter().enumerate() {
                    let last = row.len() * s + row.iter().sum::<f64>() as usize - 1;
                    let apart = (returns[last] - ours.get(names::RETURN).unwrap()[last]).abs();
                    assert_eq!(apart > 1e-7, runs_on && row.contains(&0.0), "{s}: {apart}");
                }
                let mut advantages = theirs.get(names::ADVANTAGE).unwrap().to_vec();
                whiten(&mut advantages, &mask.concat(), false);
                (advantages, returns)
            }
        };
        case.all_near("advantages", &advantages, &mask, TOLERANCE);
        case.all_near("returns", &returns, &all, TOLERANCE);
    }
}

/// Rewards whitened over the mask, and the zeros behind it in the same way; then advantages through the whole row.
fn leaking(case: &Case, mask: &Rows, rewards: Rows) -> Batch<'static> {
    let mut whitened = rewards.concat();
    whiten(&mut whitened, &mask.concat(), true);
    // The last return of a padded row is the reward there; if no row is padded, nothing reads it.
    let returns = case.expects("returns");
    let padded = mask.iter().zip(&returns).find(|(mask, _)| mask.last() == Some(&0.0));
    let padding = padded.and_then(|(_, returns)| returns.last().copied()).unwrap_or(0.0);
    let (values, width) = (case.expects("values"), mask[0].len());
    let filled: Vec<f64> =
        whitened.iter().zip(mask.concat()).map(|(x, m)| if m == 1.0 { *x } else { padding }).collect();
    let filled = filled.chunks(width).map(<[f64]>::to_vec).collect();
    Rollout::of_rewards(&same(mask, 1.0), &filled, values).prepare(estimation(case, false, false))
}

/// torchtune estimates through padding, and keeps the mean that it intends to shift: gotcha 30. Here: all tokens supervised for
/// the estimate, and whitened by hand over its mask with the mean kept. Ours agree with TRL's.
#[test]
fn gotcha_30_advantages_of_torchtune_equal_ours_with_the_mean_kept() {
    for case in family("gae_torchtune_whitened") {
        let (rewards, mask) = (case.rows("rewards"), case.rows("mask"));
        let all = same(&rewards, 1.0);
        let found = Rollout::of_rewards(&all, &rewards, case.rows("values")).prepare(estimation(&case, false, false));
        case.all_near("returns", found.get(names::RETURN).unwrap(), &all, TOLERANCE);
        let raw = found.get(names::ADVANTAGE).unwrap();
        let by_hand = |keep_mean| {
            let mut advantages = raw.to_vec();
            whiten(&mut advantages, &mask.concat(), keep_mean);
            advantages
        };
        torchtune::assert_near(
            &case.label("advantages"),
            &case.expects("advantages"),
            &by_hand(true),
            raw,
            &mask,
            true,
        );
        let theirs = kept(&case.expects("advantages").concat(), &mask);
        let ours = kept(&by_hand(false), &mask);
        assert!(theirs.iter().zip(&ours).all(|(a, b)| (a - b).abs() > 1e-6), "{theirs:?} and {ours:?}");
    }
}

/// TRL also whitens values behind the mask. In torchtune `shift_mean` has the opposite meaning.
#[test]
fn whitening_matches_trl_and_torchtune_with_their_flags_exchanged() {
    for case in family("masked_whiten") {
        let (mut found, mask) = (case.rows("x").concat(), case.rows("mask"));
        let shifts: bool = read(&case.given, "shift_mean");
        whiten(&mut found, &mask.concat(), !shifts);
        case.all_near("whitened", &found, &mask, TOLERANCE);
    }
    for case in family("whiten_torchtune") {
        let (x, mask) = (case.rows("x").concat(), case.rows("mask"));
        let (mut found, keeps): (_, bool) = (x.clone(), read(&case.given, "shift_mean"));
        whiten(&mut found, &mask.concat(), keeps);
        torchtune::assert_near(&case.label("whitened"), &case.expects("whitened"), &found, &x, &mask, keeps);
    }
}
