"""What finished jobs are announced by: where to (endpoints), what is still to be sent (outbox), and the sending.

The outbox is written in the transaction that ends a job, so that no announcement is lost, and none is made of what was
rolled back. It is sent at least once: a receiver tells repetitions by their `webhook-id`.
"""
