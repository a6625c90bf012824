"""Peer of `falaj bench orchestration`: load, train, register as a Metaflow flow on a laptop. `python metaflow_train.py run`, twice."""

from metaflow import FlowSpec, step


class TrainFlow(FlowSpec):
    """Three steps; the model is the run's artefact, which is what Metaflow has for a registry."""

    @step
    def start(self):
        from sklearn.datasets import load_digits

        self.rows, self.labels = load_digits(return_X_y=True)
        self.next(self.train)

    @step
    def train(self):
        from sklearn.linear_model import LogisticRegression

        self.model = LogisticRegression(max_iter=50).fit(self.rows, self.labels)
        self.next(self.end)

    @step
    def end(self):
        self.accuracy = float(self.model.score(self.rows, self.labels))


if __name__ == "__main__":
    TrainFlow()
