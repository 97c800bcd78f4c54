"""Program search: answers to ARC tasks from programs over images, on the CPU and with no weights. Needs only arc_submit.arc."""
