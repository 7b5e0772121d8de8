-- Filled by projections of what `scheduler` says: weights of one run that another one goes on from. They stay.
CREATE TABLE needed_round (
    object  text PRIMARY KEY
);
