//! Bytes that another program has computed from the text.

use std::collections::VecDeque;

use super::*;

/// Gives one string of bytes out, and nothing after it.
struct Given(VecDeque<u8>);

impl rand::TryRng for Given {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("blocks are filled at once")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("blocks are filled at once")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap());
        Ok(())
    }
}

impl rand::TryCryptoRng for Given {}

/// Vectors of scripts/vectors/tunnel.py, which computes them from the text with other libraries.
// protocol: T2, T4, T5, T6, T7, T8
#[test]
fn independently_computed_vectors() {
    let lines: Vec<Vec<&str>> =
        include_str!("../../../vectors/tunnel.txt").lines().map(|l| l.split(' ').collect()).collect();
    let values = |starter: &str, name: &str| -> Vec<Vec<u8>> {
        let line = lines.iter().find(|line| line[0] == starter && line[1] == name).unwrap();
        line[2..].iter().map(|value| hex::decode(value).unwrap()).collect()
    };
    let at = |starter: &str, name: &str, segment: usize| -> Block {
        values(starter, name)[segment].clone().try_into().unwrap()
    };
    let frame = |starter: &str, segment: usize| TunnelFrame {
        id: TunnelId(values(starter, "id")[segment].clone().try_into().unwrap()),
        r: at(starter, "R", segment),
        p: at(starter, "P", segment),
    };
    for starter in ["owner", "end"] {
        let secrets: Vec<_> = (1..=3).map(|n| PathSecret(Zeroizing::new([n; 32]))).collect();
        let segment = |number: u8| PathId([0x10 * number; 16]);
        let hops = secrets.iter().cloned().zip((1..=3).map(segment));
        let mut owner = Owner::new(hops.collect());
        let mut end = End::new(secrets[2].clone());
        // The owner is on segment 0, the end on segment 2.
        let (here, there) = if starter == "owner" { (0, 2) } else { (2, 0) };
        let mut rng = Given([at(starter, "S", here), at(starter, "R", there)].concat().into());
        let (q, v) = if starter == "owner" {
            assert_eq!(owner.start(&mut rng, NOW), Ok(at(starter, "S", 0)));
            let (tunnel, open) = end.on_seed(&mut rng, &at(starter, "S", 2)).unwrap();
            assert_eq!(open, frame(starter, 2));
            let (_, q) = owner.on_tunnel(&frame(starter, 0)).unwrap();
            (q, tunnel.confirm(&at(starter, "Q", 2)).unwrap().0.unwrap())
        } else {
            assert_eq!(end.start(&mut rng, NOW), Ok(at(starter, "S", 2)));
            let (tunnel, open) = owner.on_seed(&mut rng, &at(starter, "S", 0)).unwrap();
            assert_eq!(open, frame(starter, 0));
            let (_, q) = end.on_tunnel(&frame(starter, 2)).unwrap();
            (q, tunnel.confirm(&at(starter, "Q", 0)).unwrap().0.unwrap())
        };
        assert_eq!((q, v), (at(starter, "Q", here), at(starter, "V", there)));
        for (number, secret) in secrets[..2].iter().enumerate() {
            let near = number + usize::from(starter == "end");
            let (near, far) = if starter == "owner" { (near, near + 1) } else { (near, near - 1) };
            let (inner, outer) = (segment(number as u8 + 1), segment(number as u8 + 2));
            let segments = if starter == "owner" { [inner, outer] } else { [outer, inner] };
            let mut hop = Hop::new(secret.clone(), segments);
            assert_eq!(hop.seed(NOW, Side::A, &at(starter, "S", near)), Ok(at(starter, "S", far)));
            let (mut tunnel, open) = hop.tunnel(Side::B, &frame(starter, far)).unwrap();
            assert_eq!(open, frame(starter, near));
            let key = tunnel_key(secret, &at(starter, "S", near), &at(starter, "R", far));
            assert_eq!(key.0.to_vec(), values(starter, "key")[number]);
            assert_eq!(tunnel.confirm(Side::A, &at(starter, "Q", near)).unwrap().0, at(starter, "Q", far));
            assert_eq!(tunnel.confirm(Side::B, &at(starter, "V", far)).unwrap().0, at(starter, "V", near));
        }
    }
}
