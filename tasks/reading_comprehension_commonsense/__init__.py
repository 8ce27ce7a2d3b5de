"""Reading comprehension whose answers need commonsense (CosmosQA)."""
