"""Classes that may be in a trial's saved state, in addition to plain data and arrays."""

from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.stages.ensemble import Member
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.restart import Adopted
from distributed_tuner.stages.screen import Screened
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.trajectory import Waypoint
from distributed_tuner.stages.trial import Outcome
from distributed_tuner.stages.trial_memory import Memory
from distributed_tuner.stages.trial_state import Found, Left
from distributed_tuner.values import Center, Cost, Embedded, Latent, Perturbation, Point, Projection, Text

STATE_CLASSES = (
    Adopted,
    Center,
    Cost,
    Embedded,
    Found,
    Latent,
    Left,
    Member,
    Memory,
    Outcome,
    Perturbation,
    Point,
    PooledText,
    Projection,
    Screened,
    Selected,
    Exploit,
    Text,
    Waypoint,
)
