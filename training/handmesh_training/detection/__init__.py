"""Training of the detector: scenes composed of rendered and real hands, targets, the run.

layers      hands cut out, and whole pictures of them, rendered once and kept on disk
photos      real photos: whole, and hands cut out of plain grounds
grounds     what scenes stand before
distractors what looks like a hand and is none
scenes      one scene out of all these, with its labels
stream      endless batches of scenes
targets     labels on the network's grid, and the loss
validate    how many hands are found, and how well
run         `handmesh train detector`
"""
