"""Named gestures: what people do with their hands, as points in the hand model's angle space."""
