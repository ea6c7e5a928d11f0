//! A bound on a z value that holds at every look at once: the normal mixture of Robbins, with which a test may be looked at each second.
//!
//! A fixed bound of 1.645 is crossed by a harmless rollout in four of ten cases if somebody looks often enough; this one in one of twenty,
//! however often. It is tightest at the number of units that was planned.

/// For one `alpha` and one planned number of units. Of values that make no sense nothing is ever significant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boundary {
    alpha: f64,
    rho_squared: f64,
    sides: Sides,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sides {
    One,
    Two,
}

impl Boundary {
    /// For a claim in one direction; `alpha` below 0.5.
    pub fn one_sided(alpha: f64, planned_units: f64) -> Self {
        Self::new(alpha, planned_units, Sides::One)
    }

    /// For an interval; `alpha` below 1.
    pub fn two_sided(alpha: f64, planned_units: f64) -> Self {
        Self::new(alpha, planned_units, Sides::Two)
    }

    fn new(alpha: f64, planned_units: f64, sides: Sides) -> Self {
        let both = match sides {
            Sides::One => 2.0 * alpha,
            Sides::Two => alpha,
        };
        let makes_sense = both > 0.0 && both < 1.0 && planned_units > 0.0 && planned_units.is_finite();
        let rho_squared = if makes_sense { (-2.0 * both.ln() + (1.0 - 2.0 * both.ln()).ln()) / planned_units } else { f64::NAN };
        Self { alpha, rho_squared, sides }
    }

    /// Whether there is anything that could be significant.
    pub fn makes_sense(&self) -> bool {
        self.rho_squared > 0.0 && self.rho_squared.is_finite()
    }

    pub fn rho(&self) -> f64 {
        self.rho_squared.sqrt()
    }

    /// How large z must be after so many units of both arms together; infinite before the first.
    pub fn critical(&self, units: f64) -> f64 {
        let tau = self.tau(units);
        let critical = match self.sides {
            Sides::One => (2.0 * (1.0 + 1.0 / tau) * ((1.0 + tau).sqrt() / (2.0 * self.alpha)).ln_1p()).sqrt(),
            Sides::Two => ((1.0 + 1.0 / tau) * (tau.ln_1p() - 2.0 * self.alpha.ln())).sqrt(),
        };
        if critical.is_nan() { f64::INFINITY } else { critical }
    }

    /// The evidence against "no difference", as the logarithm of a bet's winnings. Two-sided: it does not know the direction of z.
    pub fn ln_e(&self, z: f64, units: f64) -> f64 {
        let tau = self.tau(units);
        let ln_e = -0.5 * tau.ln_1p() + exponent(z, tau);
        if ln_e.is_nan() { 0.0 } else { ln_e }
    }

    /// The smallest `alpha` at which this z would be significant, at any look. (The rho stays that of the planned `alpha`.)
    pub fn p_value(&self, z: f64, units: f64) -> f64 {
        let tau = self.tau(units);
        let p = match self.sides {
            Sides::One if z > 0.0 => (1.0 + tau).sqrt() / (2.0 * exponent(z, tau).exp_m1()),
            Sides::One => 1.0,
            Sides::Two => (-self.ln_e(z, units)).exp(),
        };
        if p.is_nan() { 1.0 } else { p.min(1.0) }
    }

    /// Information so far; not a number when there is none.
    fn tau(&self, units: f64) -> f64 {
        let tau = units * self.rho_squared;
        if tau > 0.0 && tau.is_finite() { tau } else { f64::NAN }
    }
}

fn exponent(z: f64, tau: f64) -> f64 {
    z * z * tau / (2.0 * (1.0 + tau))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_never_significant() {
        for (alpha, planned) in [(f64::NAN, 1e3), (0.0, 1e3), (-0.1, 1e3), (0.5, 1e3), (0.05, 0.0), (0.05, f64::NAN), (0.05, f64::INFINITY)]
        {
            let boundary = Boundary::one_sided(alpha, planned);
            assert!(!boundary.makes_sense());
            assert_eq!(boundary.critical(1e3), f64::INFINITY, "{alpha} {planned}");
            assert_eq!(boundary.p_value(9.0, 1e3), 1.0);
        }
        let boundary = Boundary::one_sided(0.05, 1e3);
        for units in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(boundary.critical(units), f64::INFINITY, "{units}");
            assert_eq!(boundary.p_value(9.0, units), 1.0);
        }
        assert_eq!(boundary.p_value(f64::NAN, 1e3), 1.0);
        assert_eq!(boundary.p_value(1e200, 1e3), 0.0);
    }

    #[test]
    fn a_z_is_significant_exactly_when_its_p_value_is() {
        for boundary in [Boundary::one_sided(0.05, 5e3), Boundary::two_sided(0.01, 5e3)] {
            for units in [200.0, 5e3, 1e6] {
                let critical = boundary.critical(units);
                assert!(boundary.p_value(critical * 1.000_001, units) < boundary.alpha);
                assert!(boundary.p_value(critical * 0.999_999, units) > boundary.alpha);
            }
        }
    }
}
