//! candle in bf16 through the built program.

use super::{bf16_trains_close_to_f32_but_not_equal, in_bf16_the_first_ratios_are_1};

#[test]
fn gotcha_07_bf16_on_candle_trains_close_to_f32_but_not_equal() {
    for path in ["backend.path=kernels", "backend.path=generic"] {
        bf16_trains_close_to_f32_but_not_equal(&[path]);
    }
}

#[test]
fn gotcha_07_27_in_bf16_on_candle_the_first_ratios_are_1_too() {
    in_bf16_the_first_ratios_are_1(&[]);
}
