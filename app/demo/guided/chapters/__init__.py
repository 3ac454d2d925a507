"""The stories of the tour, one a module; `app.demo.guided.programme` has their order."""
