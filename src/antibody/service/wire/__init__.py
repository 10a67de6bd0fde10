"""The types of the OpenAI API that this service speaks. They hold no logic beyond what a field may be."""
